import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from hope_serve.pb.hope.v1 import content_pb2 as _content_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AdaptMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADAPT_MODE_UNSPECIFIED: _ClassVar[AdaptMode]
    ADAPT_MODE_COMMIT: _ClassVar[AdaptMode]
    ADAPT_MODE_COMMIT_IF_IMPROVED: _ClassVar[AdaptMode]
    ADAPT_MODE_DRY_RUN: _ClassVar[AdaptMode]

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_VOLATILE: _ClassVar[Durability]
    DURABILITY_LOCAL_FSYNC: _ClassVar[Durability]
    DURABILITY_REPLICATED_FSYNC: _ClassVar[Durability]
ADAPT_MODE_UNSPECIFIED: AdaptMode
ADAPT_MODE_COMMIT: AdaptMode
ADAPT_MODE_COMMIT_IF_IMPROVED: AdaptMode
ADAPT_MODE_DRY_RUN: AdaptMode
DURABILITY_UNSPECIFIED: Durability
DURABILITY_VOLATILE: Durability
DURABILITY_LOCAL_FSYNC: Durability
DURABILITY_REPLICATED_FSYNC: Durability

class AdaptOptions(_message.Message):
    __slots__ = ("levels", "learning_rate_scale", "passes", "max_update_norm", "mode")
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_SCALE_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    MAX_UPDATE_NORM_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    levels: _containers.RepeatedScalarFieldContainer[int]
    learning_rate_scale: float
    passes: int
    max_update_norm: float
    mode: AdaptMode
    def __init__(self, levels: _Optional[_Iterable[int]] = ..., learning_rate_scale: _Optional[float] = ..., passes: _Optional[int] = ..., max_update_norm: _Optional[float] = ..., mode: _Optional[_Union[AdaptMode, str]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("id", "uri", "time")
    ID_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    uri: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., uri: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AdaptRequest(_message.Message):
    __slots__ = ("user_id", "request_id", "text", "token_ids", "messages", "expected_version", "options", "source")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    request_id: str
    text: str
    token_ids: _content_pb2.TokenIds
    messages: _content_pb2.Messages
    expected_version: int
    options: AdaptOptions
    source: Source
    def __init__(self, user_id: _Optional[str] = ..., request_id: _Optional[str] = ..., text: _Optional[str] = ..., token_ids: _Optional[_Union[_content_pb2.TokenIds, _Mapping]] = ..., messages: _Optional[_Union[_content_pb2.Messages, _Mapping]] = ..., expected_version: _Optional[int] = ..., options: _Optional[_Union[AdaptOptions, _Mapping]] = ..., source: _Optional[_Union[Source, _Mapping]] = ...) -> None: ...

class AdaptResponse(_message.Message):
    __slots__ = ("version", "base_version", "state_digest", "durability", "duplicate", "metrics", "timings")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    version: int
    base_version: int
    state_digest: str
    durability: Durability
    duplicate: bool
    metrics: AdaptMetrics
    timings: _content_pb2.Timings
    def __init__(self, version: _Optional[int] = ..., base_version: _Optional[int] = ..., state_digest: _Optional[str] = ..., durability: _Optional[_Union[Durability, str]] = ..., duplicate: _Optional[bool] = ..., metrics: _Optional[_Union[AdaptMetrics, _Mapping]] = ..., timings: _Optional[_Union[_content_pb2.Timings, _Mapping]] = ...) -> None: ...

class AdaptMetrics(_message.Message):
    __slots__ = ("tokens_given", "tokens_used", "nll_before", "nll_after", "surprise", "update_norm", "clipped", "skip_reason", "levels")
    TOKENS_GIVEN_FIELD_NUMBER: _ClassVar[int]
    TOKENS_USED_FIELD_NUMBER: _ClassVar[int]
    NLL_BEFORE_FIELD_NUMBER: _ClassVar[int]
    NLL_AFTER_FIELD_NUMBER: _ClassVar[int]
    SURPRISE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_NORM_FIELD_NUMBER: _ClassVar[int]
    CLIPPED_FIELD_NUMBER: _ClassVar[int]
    SKIP_REASON_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    tokens_given: int
    tokens_used: int
    nll_before: float
    nll_after: float
    surprise: float
    update_norm: float
    clipped: bool
    skip_reason: str
    levels: _containers.RepeatedCompositeFieldContainer[LevelState]
    def __init__(self, tokens_given: _Optional[int] = ..., tokens_used: _Optional[int] = ..., nll_before: _Optional[float] = ..., nll_after: _Optional[float] = ..., surprise: _Optional[float] = ..., update_norm: _Optional[float] = ..., clipped: _Optional[bool] = ..., skip_reason: _Optional[str] = ..., levels: _Optional[_Iterable[_Union[LevelState, _Mapping]]] = ...) -> None: ...

class LevelState(_message.Message):
    __slots__ = ("level", "updates", "drift")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    level: int
    updates: int
    drift: float
    def __init__(self, level: _Optional[int] = ..., updates: _Optional[int] = ..., drift: _Optional[float] = ...) -> None: ...
