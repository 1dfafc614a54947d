/*
 * wrap_guard.c - the guards of the libc names, and the count of what they
 * stopped.
 *
 * Obeys HAKMEM_FORCE_LIBC_ALLOC, HAKMEM_BENCH_FAST_MODE, HAKMEM_WRAP_DIAG.
 *
 * Tested by tests/wrap/guards.c.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/msg.h"
#include "settings/options.h"
#include "libc_names/wrap.h"

_Atomic(int) haki_wrap_state = HAK_WRAP_COLD;

__thread unsigned haki_wrap_flags __attribute__((tls_model("initial-exec")));

/* Blocks that a signal handler freed while the thread was in the lanes. */
static __thread struct hak_block *wrap_deferred;

/* ---- HAKMEM_WRAP_DIAG --------------------------------------------------- */

static const char *const wrap_names[HAK_REASONS] = {
    [HAK_REASON_LARGE] = "large",   [HAK_REASON_ALIGNED] = "aligned",
    [HAK_REASON_MEMORY] = "memory", [HAK_REASON_EXITED] = "exited",
    [HAK_REASON_INIT] = "init",     [HAK_REASON_RECURSION] = "recursion",
    [HAK_REASON_FORCED] = "forced",
};

static atomic_bool wrap_diag;
static atomic_bool wrap_said[HAK_REASONS];

static void wrap_say_once(enum hak_reason reason)
{
    if (!atomic_exchange(&wrap_said[reason], true)) {
        haki_msg_raw("[wrap] libc malloc: %s", wrap_names[reason]);
    }
}

static HAK_COLD void wrap_start_diag(void)
{
    struct hak_system_counts counts;

    atomic_store(&wrap_diag, true);
    haki_system_counts(&counts);
    if (counts.fallback[HAK_REASON_INIT] != 0) {
        wrap_say_once(HAK_REASON_INIT);
    }
}

__attribute__((destructor)) static void wrap_say_counts(void)
{
    struct hak_system_counts counts;
    char line[400];
    size_t used = 0;

    if (!atomic_load(&wrap_diag)) {
        return;
    }
    haki_system_counts(&counts);
    for (int i = 0; i < HAK_REASONS && used < sizeof(line); i++) {
        used += (size_t)snprintf(line + used, sizeof(line) - used, "%s %llu, ",
                                 wrap_names[i],
                                 (unsigned long long)counts.fallback[i]);
    }
    haki_msg_raw(
        "[wrap] exit: libc malloc: %slibc blocks freed or resized %llu", line,
        (unsigned long long)counts.foreign);
}

void *haki_policy_fallback(size_t alignment, size_t size, bool zero,
                           enum hak_reason reason)
{
    haki_system_count(reason);
    if (atomic_load_explicit(&wrap_diag, memory_order_relaxed)) {
        wrap_say_once(reason);
    }
    if (alignment > HAK_LANE_ALIGN) {
        return haki_libc_memalign(alignment, size);
    }
    return zero ? haki_libc_zalloc(size) : haki_libc_malloc(size);
}

/* ---- the init barrier --------------------------------------------------- */

static int wrap_state_wanted(void)
{
    if (haki_option(HAK_OPT_wrap_diag) || haki_option(HAK_OPT_show_stats)) {
        haki_msg_keep();
    }
    if (haki_option(HAK_OPT_wrap_diag)) {
        wrap_start_diag();
    }
    if (haki_option(HAK_OPT_force_libc_alloc)) {
        haki_thread_close();
        return HAK_WRAP_FORCED;
    }
    if (!haki_range_init()) {
        return HAK_WRAP_NO_RANGE;
    }
    return haki_option(HAK_OPT_bench_fast_mode) ? HAK_WRAP_FAST : HAK_WRAP_OPEN;
}

/* The first caller reads the options; callers meanwhile don't wait. */
static void wrap_start(void)
{
    int cold = HAK_WRAP_COLD;
    int saved = errno;

    if (atomic_compare_exchange_strong(&haki_wrap_state, &cold,
                                       HAK_WRAP_STARTING)) {
        atomic_store_explicit(&haki_wrap_state, wrap_state_wanted(),
                              memory_order_release);
    }
    errno = saved;
}

/* ---- deferred frees ------------------------------------------------------ */

void haki_wrap_defer(void *p)
{
    struct hak_block *block = p;

    /* Encoded, but not marked: it is not free yet. */
    block->next = haki_link_turn(block, wrap_deferred);
    wrap_deferred = block;
    haki_wrap_flags |= HAK_WRAP_DEFERRED;
}

static void wrap_free_deferred(void)
{
    haki_wrap_flags &= ~HAK_WRAP_DEFERRED;
    while (wrap_deferred != NULL) {
        struct hak_block *block = wrap_deferred;

        wrap_deferred = haki_link_turn(block, block->next);
        haki_lane_free(block, "free");
    }
}

__attribute__((constructor(101))) static void wrap_load(void)
{
    wrap_start();
}

/* ---- the guards --------------------------------------------------------- */

/* Whether the state lets anyone through. */
static bool wrap_is_open(enum hak_reason *reason)
{
    int state = atomic_load_explicit(&haki_wrap_state, memory_order_acquire);

    /* Before the C library has started there is no environment to read. */
    if (state == HAK_WRAP_COLD && haki_options_ready()) {
        wrap_start();
        state = atomic_load_explicit(&haki_wrap_state, memory_order_acquire);
    }
    *reason = state == HAK_WRAP_FORCED     ? HAK_REASON_FORCED
              : state == HAK_WRAP_NO_RANGE ? HAK_REASON_MEMORY
                                           : HAK_REASON_INIT;
    return state >= HAK_WRAP_OPEN;
}

bool haki_wrap_enter_slow(enum hak_reason *reason)
{
    if (!wrap_is_open(reason)) {
        return false;
    }
    if ((haki_wrap_flags & HAK_WRAP_INSIDE) != 0) {
        *reason = HAK_REASON_RECURSION;
        return false;
    }
    haki_wrap_flags |= HAK_WRAP_INSIDE;
    wrap_free_deferred();
    return true;
}
