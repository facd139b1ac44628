"""Runs a command under the seccomp filter that systemd would make of a unit, by the library that systemd uses.

syscall-filter.py ALLOWED REFUSED FAMILIES COMMAND...: names of system calls, numbers of address families, by commas.
What is refused fails with EPERM, as does a socket of another family; what neither list names with ENOSYS.
"""
import ctypes
import errno
import os
import sys


class Comparison(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


EQUAL = 4
ALLOW = 0x7FFF0000
FAIL = 0x00050000

library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
library.seccomp_load.argtypes = [ctypes.c_void_p]
library.seccomp_rule_add_array.argtypes = [
    *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison)),
]
allowed, refused, families = (set(filter(None, words.split(","))) for words in sys.argv[1:4])
filter_ = library.seccomp_init(FAIL | errno.ENOSYS)


def rule(action, name, *comparisons):
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return  # Not of this architecture, or newer than the library.
    array = (Comparison * len(comparisons))(*comparisons)
    if library.seccomp_rule_add_array(filter_, action, number, len(comparisons), array) != 0:
        sys.exit(f"no rule for {name}")


for name in allowed - {"socket"}:
    rule(ALLOW, name)
for name in refused - {"socket"}:
    rule(FAIL | errno.EPERM, name)
for family in range(64):
    is_allowed = "socket" in allowed and str(family) in families
    rule(ALLOW if is_allowed else FAIL | errno.EPERM, "socket", Comparison(0, EQUAL, family, 0))
if library.seccomp_load(filter_) != 0:
    sys.exit("the filter was refused")
os.execvp(sys.argv[4], sys.argv[4:])
