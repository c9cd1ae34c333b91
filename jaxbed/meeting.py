"""How the processes of one run find each other: flags, launchers, the meeting itself."""

import atexit
import contextlib
import dataclasses
import os

from jaxbed import hosts, roll_call, whole_files
from jaxbed.errors import InputError, LostProcessError, short

AUTO = "auto"
"""The address that stands for what a launcher says in its environment."""


def join(
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    *,
    wait_s: float = 600.0,
    stall_s: float = 60.0,
) -> None:
    """Meets the other processes; call it before JAX starts.

    Args:
        coordinator: address and port of process 0; AUTO for what the launcher says (SLURM, Open
            MPI, Kubernetes, Cloud TPU); None for a process that is alone.
        processes: how many there are; None with AUTO.
        process_id: which of them this is; None with AUTO.
        wait_s: see jaxbed.hosts.Patience.
        stall_s: see jaxbed.hosts.Patience.

    Raises:
        InputError: the flags contradict each other, there is no launcher, or not everybody came.
    """
    for flag, seconds in {"--wait-s": wait_s, "--stall-s": stall_s}.items():
        if not seconds > 0:
            raise InputError(f"{flag} is {seconds:g}, but must be more than 0 seconds.")
    hosts.patience.wait_s, hosts.patience.stall_s = wait_s, stall_s
    if coordinator is None:
        if processes is not None or process_id is not None:
            raise InputError(
                "--processes and --process-id need --coordinator, the address and port of "
                "process 0; add it, or leave all three out for a process that is alone."
            )
        return
    meeting = (
        _from_launcher() if coordinator == AUTO else _asked(coordinator, processes, process_id)
    )
    if meeting.num_processes == 1:
        return
    _meet(meeting)
    if hosts.is_lead():
        # What is registered last runs first: before JAX's own farewell, which waits less long.
        atexit.register(_release)
    else:
        whole_files.keep_nothing()


@dataclasses.dataclass(frozen=True)
class _Meeting:
    """Where and with whom a process meets; the names are those of jax.distributed.initialize."""

    coordinator_address: str
    num_processes: int
    process_id: int
    local_device_ids: tuple[int, ...] | None = None


def _asked(coordinator: str, processes: int | None, process_id: int | None) -> _Meeting:
    """Checks the three flags."""
    if processes is None or process_id is None:
        raise InputError(
            f"--coordinator {coordinator} needs --processes and --process-id too; add them, or "
            f"take --coordinator {AUTO} under SLURM, Open MPI, Kubernetes or on a TPU pod."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(
            f"--coordinator is {coordinator!r}, but must be the address and port of process 0, "
            f"such as 10.0.0.1:1234, or {AUTO}."
        )
    if not 0 <= process_id < processes:
        raise InputError(
            f"--process-id is {process_id}, but must be between 0 and {processes - 1}, one less "
            f"than --processes {processes}."
        )
    return _Meeting(coordinator, processes, process_id)


def _from_launcher() -> _Meeting:
    """Reads what the launcher says of the meeting.

    Private to JAX: `jax.distributed.initialize` would read it too, but would go on to meet the
    others at once and abort the process where one is missing.
    """
    from jax._src import clusters

    try:
        found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, int(hosts.patience.wait_s)
        )
    except Exception as error:  # each launcher's own
        raise InputError(
            f"--coordinator {AUTO}: the launcher does not say where to meet ({short(error)}); "
            "name the address, --processes and --process-id."
        ) from error
    address, processes, process_id, devices = found
    if os.environ.get("JAX_LOCAL_DEVICE_IDS"):  # JAX reads it where nothing else is said
        devices = None
    if address is None or processes is None or process_id is None:
        raise InputError(
            f"--coordinator {AUTO} finds no launcher here: no job step of SLURM (srun), no Open "
            "MPI, no Kubernetes job (which needs the package kubernetes) and no TPU pod; name "
            "the address, --processes and --process-id."
        )
    return _Meeting(address, processes, process_id, tuple(devices) if devices else None)


def _meet(meeting: _Meeting) -> None:
    """Calls the roll, then lets JAX meet."""
    import jax

    address, wait_s = meeting.coordinator_address, hosts.patience.wait_s
    try:
        wrong = roll_call.call(address, meeting.num_processes, meeting.process_id, limit_s=wait_s)
    except OSError as error:
        raise InputError(
            f"--coordinator {address}: process 0 cannot listen there ({error.strerror}); name a "
            "port of this host that is free."
        ) from error
    if wrong:
        raise InputError(
            f"--coordinator {address}: {wrong} (within {wait_s:g} s); start the same command "
            f"{meeting.num_processes} times, each with its own --process-id, and see that every "
            "host reaches that address."
        )
    jax.distributed.initialize(
        **dataclasses.asdict(meeting),
        cluster_detection_method="deactivate",
        initialization_timeout=max(int(wait_s), 10),
    )


def _release() -> None:
    """Lets those go who wait for the lead's report; others are on their way out by themselves."""
    with contextlib.suppress(LostProcessError):
        hosts.wait("end", limit_s=1.0)
