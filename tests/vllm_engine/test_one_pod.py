"""One pod that learns by the native engine and reads by vLLM."""

from __future__ import annotations

import pytest
from support.vllm_pods import LESSONS, said, store_and_pods

from hope_serve.config import ConfigError

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


async def test_it_reads_what_it_has_learned_itself_as_a_native_pod_does(tmp_path):
    async with store_and_pods(tmp_path) as open_pod, open_pod(backend="vllm") as pod, open_pod() as native:
        plain = await said(pod, "cleo")
        version = (await pod.adapt("cleo", LESSONS[1])).version
        read = await said(pod, "cleo", min_version=version)
        assert read == await said(native, "cleo", exact_version=version)
        assert read[1] != plain[1] == (await said(native, "nobody"))[1]
        with pytest.raises(ConfigError, match=r"vLLM runs in this process already"):
            async with open_pod(backend="vllm"):
                pass
