"""Several processes: they meet, wait with a limit, share what the lead has, tell who stands still.

What they train together is in tests/test_layouts.py.
"""

import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaxbed import hosts, meeting, roll_call, whole_files
from jaxbed.data.batches import eval_batches, train_batches
from jaxbed.errors import InputError
from jaxbed.training.pulse import Watch


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def called(*processes, limit_s=5.0):
    """Calls the roll for (process id, number of processes) at once; returns what each hears."""
    address = f"localhost:{free_port()}"
    with ThreadPoolExecutor(len(processes)) as pool:
        answers = [
            pool.submit(roll_call.call, address, count, number, limit_s=limit_s)
            for number, count in processes
        ]
        return [answer.result(timeout=30) for answer in answers]


def test_who_came_goes_on():
    assert called((0, 3), (2, 3), (1, 3)) == ["", "", ""]
    assert roll_call.call("nowhere:1", 1, 0, limit_s=1) == ""


def test_everybody_hears_who_is_missing():
    told = called((0, 5), (1, 5), (3, 5), limit_s=1.0)
    assert told == ["processes 2, 4 did not come"] * 3
    assert called((0, 2), limit_s=0.2) == ["process 1 did not come"]


def test_a_missing_lead_is_told():
    assert called((1, 2), limit_s=0.3) == ["process 0 did not answer"]


def test_two_processes_of_one_number_and_other_counts_are_told():
    told = called((0, 4), (1, 4), (1, 4), limit_s=2.0)
    assert set(told) == {"two processes have the number 1"}
    told = called((0, 3), (1, 2), limit_s=2.0)
    assert set(told) == {"process 1 expects 2 processes, the lead 3"}


def test_strangers_at_the_port_are_not_counted():
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        lead = pool.submit(roll_call.call, f"localhost:{port}", 2, 0, limit_s=10)
        for stray in (b"GET / HTTP/1.1\r\n\r\n\n", b"[1]\n", b"{\n", b""):
            while True:
                try:
                    with socket.create_connection(("localhost", port), timeout=5) as visitor:
                        visitor.sendall(stray)
                    break
                except ConnectionRefusedError:
                    continue
        other = pool.submit(roll_call.call, f"localhost:{port}", 2, 1, limit_s=10)
        assert (lead.result(30), other.result(30)) == ("", "")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((None, 2, None), "need --coordinator"),
        ((None, None, 0), "need --coordinator"),
        (("here:1", 2, None), "--processes and --process-id too"),
        (("here", 2, 0), "'here'"),
        (("here:port", 2, 0), "'here:port'"),
        (("here:99999", 2, 0), "'here:99999'"),
        (("here:1", 2, 2), "between 0 and 1"),
        (("auto", None, None), "finds no launcher here"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags, told, monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=told):
        meeting.join(*flags)


def test_no_patience_is_refused():
    with pytest.raises(InputError, match="--stall-s is 0"):
        meeting.join(None, None, None, stall_s=0)


def test_slurm_says_where_to_meet(monkeypatch):
    said = {
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_NODELIST": "node[007-009]",
        "SLURM_NTASKS": "3",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    found = meeting._from_launcher()
    assert found.coordinator_address.startswith("node007:")
    assert (found.num_processes, found.process_id, found.local_device_ids) == (3, 2, (0,))


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match="cannot listen"):
            meeting.join(address, 2, 0, wait_s=1)


def test_a_missing_process_is_told_in_one_sentence_before_jax_starts():
    with pytest.raises(InputError, match=r"process 1 did not come \(within 0.5 s\)"):
        meeting.join(f"localhost:{free_port()}", 2, 0, wait_s=0.5)
    assert hosts.count() == 1


def test_the_error_of_a_barrier_names_who_is_missing():
    said = (
        "DEADLINE_EXCEEDED: Barrier timed out. Id: jaxbed x 0::0.\n# of tasks that reached the "
        "barrier: 2/5.\nThe first task at the barrier: 3. Some timed out task names:\n1\n0\n4\n\n"
        "RPC: /xla.coordination.CoordinationService/Barrier"
    )
    told = hosts._who_is_missing("the start", 12.0, said)
    assert told.startswith("processes 0, 1, 4 of 1 did not come to 'the start' within 12 s;")
    lost = hosts._who_is_missing("the start", 12.0, "UNAVAILABLE: connection closed")
    assert "lost each other" in lost


def test_a_process_that_is_alone_waits_for_nobody():
    hosts.wait("anything", limit_s=0.01)
    assert hosts.is_lead()
    assert hosts.on_lead("work", lambda: "done") == "done"
    tree = {"a": np.arange(3)}
    assert hosts.from_lead(tree) is tree
    hosts.leave_the_rest_to_the_lead()


def test_processes_that_do_not_lead_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_files, "_kept", True)
    whole_files.keep_nothing()
    whole_files.write_json(tmp_path / "a.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_of_a_batch_put_together_are_the_batch(parts):
    arrays = {"x": np.arange(22), "y": np.arange(44).reshape(22, 2)}

    def joined(batches):
        return {name: np.concatenate([part[name] for part in batches]) for name in batches[0]}

    whole = train_batches(arrays, batch_size=8, seed=3)
    shared = [train_batches(arrays, batch_size=8, seed=3, part=(i, parts)) for i in range(parts)]
    for step in (0, 1, 7):
        together = joined([batches[step] for batches in shared])
        assert all((together[name] == whole[step][name]).all() for name in arrays)
    evals = [list(eval_batches(arrays, batch_size=8, part=(i, parts))) for i in range(parts)]
    for batch, *split in zip(eval_batches(arrays, batch_size=8), *evals, strict=True):
        together = joined(split)
        assert all((together[name] == batch[name]).all() for name in ("x", "y", "mask"))


def test_a_batch_that_cannot_be_parted_is_refused():
    with pytest.raises(ValueError, match="3 processes"):
        train_batches({"x": np.arange(9)}, batch_size=8, seed=0, part=(0, 3))


def said(*moves, doing="train"):
    return {
        i: {"moves": m, "at": f"step {m} of tiny", "doing": doing, "host": f"node{i}"}
        for i, m in enumerate(moves)
    }


def test_who_stands_still_is_told_once_with_who_waits():
    watch = Watch(stall_s=10)
    assert watch.look(said(5, 5, 5), 0) == ""
    assert watch.look(said(6, 5, 6), 1) == ""
    assert watch.look(said(6, 5, 6), 9.9) == ""
    told = watch.look(said(6, 5, 6), 10.5)
    assert told == (
        "process 1 made no step for 10 s, and 2 wait for it (1 on node1 is at step 5 of tiny, "
        "busy with train)"
    )
    assert watch.look(said(6, 5, 6), 30) == ""
    assert watch.look(said(7, 7, 7), 31) == ""
    assert watch.look(said(8, 7, 7), 41.5).startswith("processes 1, 2 made no step")


def test_steps_as_slow_as_they_may_be_are_not_told():
    watch = Watch(stall_s=10)
    assert not any(watch.look(said(i, i), 9.0 * i) for i in range(20))
    assert watch.look({}, 500) == ""
