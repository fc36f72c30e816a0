"""The audit log by itself; what the store puts on it is the store's tests' business."""

from pathlib import Path

from hope_serve.memory.audit import Action, AuditEvent, AuditFile

EVENT = AuditEvent(time=1.0, action=Action.ERASE, owner="o", tenant="t", version=3)


def test_an_event_is_one_line_without_names(tmp_path):
    log = AuditFile(tmp_path / "audit.jsonl")
    log.record(EVENT)
    log.record(EVENT)
    log.close()
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert len(lines) == 2 and '"action":"erase"' in lines[0]


def test_an_event_that_a_full_disk_refuses_goes_to_the_process_s_log(caplog):
    log = AuditFile(Path("/dev/full"))
    log.record(EVENT)
    log.close()
    assert '"action":"erase"' in caplog.text and "No space left" in caplog.text
