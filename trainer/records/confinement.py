"""What a child process that reads strangers' files may take, set by itself before it touches one."""

import resource


def confine(*, memory_bytes: int, cpu_seconds: int) -> None:
    """Bound this process for good: its address space, its processor time, and no dump of its memory."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
