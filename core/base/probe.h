/*
 * probe.h - probes for tracers (USDT: bpftrace, perf, gdb): a nop in the code and a
 * note in the file of where it is and where its arguments are.
 *
 * Of <sys/sdt.h>, where that is there when HAKMEM is compiled (Debian:
 * systemtap-sdt-dev); elsewhere nothing. docs/PROFILE.md has a list of them.
 */
#ifndef HAK_PROBE_H
#define HAK_PROBE_H

#if defined(__has_include)
#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#define HAK_PROBES 1
#endif
#endif

/* In the file that has probes: sdt.h's macros expand to what ISO C has not. */
#if defined(HAK_PROBES) && defined(__clang__)
#pragma clang diagnostic ignored "-Wgnu-zero-variadic-macro-arguments"
#endif

#ifdef HAK_PROBES
#define HAK_PROBE4(name, a, b, c, d) DTRACE_PROBE4(hakmem, name, a, b, c, d)
#else
#define HAK_PROBE4(name, a, b, c, d)                                           \
    ((void)(a), (void)(b), (void)(c), (void)(d))
#endif

#endif /* HAK_PROBE_H */
