/*
 * hakmem.c - the whole core as one file, for projects that include its sources.
 *
 *     cc -O2 -fvisibility=hidden -Iinclude -Icore -c hakmem.c
 *
 * makes an object with the hak_* functions. For malloc's and C++'s names as
 * well, add
 *
 *     -DHAKMEM_MALLOC=1 -fexceptions -fno-builtin-malloc -fno-builtin-calloc \
 *         -fno-builtin-realloc -fno-builtin-free
 *
 * core/ and include/ must lie beside it. Add -fPIC for a shared library, which
 * exports only hak_*. Link with -pthread. include/hakmem.h is the interface;
 * -DHAK_HARDENED=1 makes the hardened build. This file only includes others, in
 * the order of the core's folders, lowest first (.ci/layers.txt).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef HAK_VERSION_STRING
#define HAK_VERSION_STRING "0.1.0 (one file)"
#endif

#include "core/base/msg.c"
#include "core/os/cgroup.c"
#include "core/os/lock.c"
#include "core/os/os_linux.c"
#include "core/os/os_ask.c"
#include "core/os/os_thread.c"
#include "core/os/shared.c"
#include "core/settings/options.c"
#ifdef HAK_HARDENED
#include "core/guard/hard.c"
#endif
#include "core/range/allowance.c"
#include "core/range/claims.c"
#include "core/range/pages.c"
#include "core/range/pressure.c"
#include "core/range/purge.c"
#include "core/range/range.c"
#include "core/range/range_walk.c"
#include "core/range/rooms.c"
#include "core/range/slabs.c"
#include "core/range/slots.c"
#include "core/range/supers_mend.c"
#include "core/range/superslabs.c"
#include "core/profile/blame.c"
#include "core/profile/copies.c"
#include "core/profile/draw.c"
#include "core/profile/fault.c"
#include "core/profile/formats.c"
#include "core/profile/guarded.c"
#include "core/profile/out.c"
#include "core/profile/page.c"
#include "core/profile/pprof.c"
#include "core/profile/profile.c"
#include "core/profile/recipes.c"
#include "core/profile/records.c"
#include "core/profile/rows.c"
#include "core/profile/samples.c"
#include "core/profile/stacks.c"
#include "core/profile/symbols.c"
#include "core/profile/unwind.c"
#include "core/profile/view.c"
#include "core/tiny/remote.c"
#include "core/tiny/tiny.c"
#include "core/tiny/tiny_back.c"
#include "core/tiny/tiny_class.c"
#include "core/tiny/tiny_draw.c"
#include "core/tiny/tiny_grain.c"
#include "core/tiny/tiny_grain_ask.c"
#include "core/tiny/tiny_pages.c"
#include "core/tiny/tiny_seal.c"
#include "core/tiny/tiny_slab.c"
#include "core/tiny/tiny_walk.c"
#include "core/pool/pool.c"
#include "core/pool/pool_back.c"
#include "core/pool/pool_class.c"
#include "core/pool/pool_draw.c"
#include "core/pool/pool_pages.c"
#include "core/pool/pool_seal.c"
#include "core/pool/pool_walk.c"
#include "core/ace/ace.c"
#include "core/ace/ace_cache.c"
#include "core/ace/ace_gone.c"
#include "core/ace/ace_holes.c"
#include "core/ace/ace_tree.c"
#include "core/ace/ace_walk.c"
#include "core/huge/huge.c"
#include "core/system/system.c"
#ifdef HAKMEM_MALLOC
#include "core/system/libc_real.c"
#else
#include "core/system/libc_plain.c"
#endif
#include "core/heap/account.c"
#include "core/heap/haste.c"
#include "core/heap/heap.c"
#include "core/heap/lend.c"
#include "core/heap/outspan.c"
#include "core/heap/resident.c"
#include "core/heap/thread.c"
#include "core/heap/thread_idle.c"
#include "core/upkeep/background.c"
#include "core/upkeep/look.c"
#include "core/upkeep/relief.c"
#include "core/front/behind.c"
#include "core/front/check.c"
#include "core/front/lane.c"
#include "core/front/large.c"
#ifdef HAK_HARDENED
#include "core/front/hard_lane.c"
#endif
#include "core/api/alloc.c"
#include "core/api/embed_heap.c"
#include "core/api/heap_explicit.c"
#include "core/api/heap_limit.c"
#include "core/api/seal.c"
#include "core/api/profiling.c"
#include "core/api/sized.c"
#include "core/api/stats.c"
#include "core/api/live.c"
#include "core/api/share.c"
#include "core/api/stats_text.c"

#ifdef HAKMEM_MALLOC
#include "core/libc_names/wrap.c"
#include "core/libc_names/wrap_alone.c"
#include "core/libc_names/wrap_dl.c"
#include "core/libc_names/wrap_guard.c"
#include "core/libc_names/wrap_info.c"
#include "core/libc_names/wrap_new.c"
#include "core/libc_names/wrap_nothrow.c"
#endif
