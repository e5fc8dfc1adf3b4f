"""Print the processor that this process runs on, as the instruction CPUID names it: its name, vendor and vector instructions.

Under qemu-user this is the emulated processor. /proc/cpuinfo shows the real one there. This script needs no library, so that
it starts fast.
"""

import ctypes
import mmap
import platform
import struct

# uint32 leaf (edi), uint32 *found (rsi): call CPUID with this leaf and subleaf 0, and store eax, ebx, ecx and edx.
_CODE = bytes.fromhex("53 89f8 31c9 0fa2 8906 895e04 894e08 89560c 5b c3")


def cpuid(leaf: int) -> tuple[int, int, int, int]:
    """Return what CPUID leaves in eax, ebx, ecx and edx."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_CODE)
        start = ctypes.c_char.from_buffer(page)
        found = (ctypes.c_uint32 * 4)()
        ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(start))(leaf, ctypes.addressof(found))
        del start  # a page that something points to cannot be closed
    return found[0], found[1], found[2], found[3]


def describe() -> str:
    """Return the processor on one line, such as "processor: Intel Core Processor (Haswell), GenuineIntel, AVX2"."""
    if platform.machine() != "x86_64":
        return f"processor: {platform.machine()}"
    _, ebx, ecx, edx = cpuid(0)
    vendor = struct.pack("<3I", ebx, edx, ecx).decode("ascii")
    name = b"".join(struct.pack("<4I", *cpuid(leaf)) for leaf in (0x80000002, 0x80000003, 0x80000004))
    features = cpuid(7)[1]
    vectors = [feature for feature, bit in (("AVX2", 5), ("AVX-512", 16)) if features >> bit & 1]
    return f"processor: {', '.join([name.decode('ascii').strip(chr(0) + ' '), vendor, *vectors])}"


if __name__ == "__main__":
    print(describe(), flush=True)
