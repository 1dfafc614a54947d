/*
 * share.c - statistics that other processes of the same user can read.
 *
 * Obeys HAKMEM_SHARE_STATS.
 * Tested by tests/command/test_share.py, in programs that must not be harmed.
 */
#include "api/share.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/live.h"
#include "api/stats.h"
#include "os/os.h"
#include "os/shared.h"
#include "profile/profile.h"
#include "range/pressure.h"
#include "settings/options.h"
#include "upkeep/background.h"
#include "upkeep/look.h"

#define LEAST_HELD (2 * HAK_MIB) /* below: no page */
#define MUCH_HELD (32 * HAK_MIB) /* from there on also before LIVED */
#define LIVED 1000               /* milliseconds */
#define EVERY 1000               /* between two that nobody has asked for */
#define COST 1000                /* times what one takes, as well */
#define CHANGED (4 * HAK_MIB)    /* held more or less than then: sooner */
#define MS 1000000               /* nanoseconds */
#define WATCH_MOST                                                             \
    120000 /* milliseconds; who watches for longer says so again */

/* In a page that is wiped in a child. All zero: nothing has been tried. */
struct share_state {
    atomic_bool tried;
    atomic_bool writing;
    _Atomic(struct hak_share *) page; /* NULL: there is none */
    _Atomic(uint32_t) since; /* haki_os_tick() of the first look, or 0 */
    _Atomic(size_t) from;    /* held then, in a forked child */
    _Atomic(uint32_t) last;  /* of the last writing */
    _Atomic(uint32_t) pause; /* until the next that nobody has asked for */
    _Atomic(size_t) held;    /* at the last writing */
    struct hak_shared file;  /* written by who has tried */
    struct hak_live live;
};

_Static_assert(sizeof(struct share_state) <= HAK_PAGE, "haki_os_map_wiped's");

static _Atomic(struct share_state *) share_state;
static uint32_t share_began; /* haki_os_tick() when the library was loaded */
static char share_runtime[HAK_SHARED_PATH]; /* XDG_RUNTIME_DIR, then, or "" */

/* ---- writing ------------------------------------------------------------------ */

/* Each statistic by its place: they are all uint64_t. */
static const size_t share_at[] = {
#define HAK_STAT(name, kind, unit, help) offsetof(hak_stats_t, name),
#include <hakmem_stats.def>
#undef HAK_STAT
};

static void share_set_values(struct hak_share *page, const hak_stats_t *stats)
{
    for (size_t i = 0; i < HAK_SHARE_STATS; i++) {
        uint64_t value;

        memcpy(&value, (const char *)stats + share_at[i], sizeof(value));
        atomic_store_explicit(&page->values[i], value, memory_order_relaxed);
    }
    atomic_store_explicit(&page->values[HAK_SHARE_STATS], haki_profile_bytes(),
                          memory_order_relaxed);
}

/* Nobody looks at these but who has asked. */
static void share_set_classes(struct hak_share *page)
{
    struct hak_class_counts counts[HAK_CLASSES] = {{0}};

    haki_stats_classes(counts);
    for (size_t i = 0; i < HAK_CLASSES; i++) {
        struct hak_share_class *class = &page->class[i];

        atomic_store_explicit(&class->allocs, counts[i].allocs,
                              memory_order_relaxed);
        atomic_store_explicit(&class->live, counts[i].live,
                              memory_order_relaxed);
        atomic_store_explicit(&class->kept, counts[i].kept,
                              memory_order_relaxed);
        atomic_store_explicit(&class->slabs, counts[i].slabs,
                              memory_order_relaxed);
        atomic_store_explicit(&class->block, counts[i].block,
                              memory_order_relaxed);
    }
}

/* A reader that has seen an even number twice, and the same, has read a whole. */
static void share_write_page(struct hak_share *page, bool leaving)
{
    hak_stats_t stats = {.size = sizeof(stats)};
    uint32_t asked = atomic_load_explicit(&page->asked, memory_order_acquire);
    uint32_t sequence =
        atomic_load_explicit(&page->sequence, memory_order_relaxed);

    haki_inside_stats(&stats);
    atomic_store_explicit(&page->sequence, sequence | 1, memory_order_relaxed);
    haki_fence_release();
    share_set_values(page, &stats);
    if (asked != atomic_load_explicit(&page->answered, memory_order_relaxed) ||
        (leaving && asked != 0)) {
        share_set_classes(page);
    }
    atomic_store_explicit(&page->written, haki_os_clock(),
                          memory_order_relaxed);
    atomic_store_explicit(&page->rest_cpu, leaving ? haki_os_cpu_time() : 0,
                          memory_order_relaxed);
    atomic_store_explicit(&page->answered, asked, memory_order_relaxed);
    atomic_store_explicit(&page->sequence, (sequence | 1) + 1,
                          memory_order_release);
    haki_look_answer(asked);
}

static void share_write(struct share_state *state, uint32_t now, bool leaving)
{
    struct hak_share *page = atomic_load(&state->page);
    uint64_t from = haki_os_clock();
    uint64_t took;

    if (page == NULL || atomic_exchange(&state->writing, true)) {
        return;
    }
    share_write_page(page, leaving);
    took = (haki_os_clock() - from) / MS * COST;
    atomic_store(&state->pause,
                 (uint32_t)haki_min(haki_max(took, EVERY), UINT32_MAX / 4));
    atomic_store(&state->held, haki_limit_used());
    atomic_store(&state->last, now);
    atomic_store(&state->writing, false);
}

/* ---- making -------------------------------------------------------------------- */

static void share_head(struct hak_share *page)
{
    static const char version[] = HAK_VERSION_STRING;

    page->version = HAK_SHARE_VERSION;
    page->size = sizeof(*page);
    page->pid = (uint32_t)getpid();
    page->fields = HAK_SHARE_FIELDS;
    page->values_at = offsetof(struct hak_share, values);
    page->names_at = offsetof(struct hak_share, names);
    page->pid_namespace = haki_shared_namespace();
    page->core = (uint64_t)(uintptr_t)share_at; /* in the file, not behind it */
    page->began = haki_os_clock();
    page->classes_at = offsetof(struct hak_share, class);
    page->classes = HAK_CLASSES;
    memcpy(page->library_version, version,
           haki_min(sizeof(version), sizeof(page->library_version) - 1));
    memcpy(page->names,
#define HAK_STAT(name, kind, unit, help) #name " " #kind " " #unit "\n"
#include <hakmem_stats.def>
#undef HAK_STAT
           HAK_SHARE_MORE, HAK_SHARE_NAMES);
}

static void share_make(struct share_state *state, uint32_t now)
{
    struct hak_share *page;

    if (atomic_exchange(&state->tried, true) ||
        haki_option(HAK_OPT_share_stats) == 0 ||
        !haki_shared_make(&state->file, share_runtime, HAK_SHARE_BYTES,
                          haki_os_clock())) {
        return;
    }
    page = state->file.memory;
    share_head(page);
    atomic_store(&state->page, page);
    share_write(state, now, false);
    haki_look_ask_at(&page->asked);
    /* Readers look for it, and ask from then on; what they see is complete. */
    haki_fence_release();
    memcpy(page->magic, HAK_SHARE_MAGIC, sizeof(page->magic));
}

/* ---- looks --------------------------------------------------------------------- */

/* Whether a process that began at `since`, with so much held, is to have a page. */
static bool share_is_worth_it(uint32_t since, size_t from, uint32_t now)
{
    size_t held = haki_limit_used();

    return held >= from + MUCH_HELD ||
           (held >= LEAST_HELD && now - since >= LIVED);
}

/* The state, made when a page is; NULL: there is none, or the kernel can't. */
static struct share_state *share_state_get(uint32_t now)
{
    struct share_state *state = atomic_load(&share_state), *none = NULL;

    if (state == NULL && share_is_worth_it(share_began, 0, now)) {
        state = haki_os_map_wiped(HAK_PAGE);
        if (state != NULL) {
            atomic_store(&state->since, haki_some_time(share_began));
            if (!atomic_compare_exchange_strong(&share_state, &none, state)) {
                haki_os_unmap(state, HAK_PAGE);
                state = none;
            }
        }
    }
    return state;
}

/* Nobody has asked: whether it is too early all the same. */
static bool share_is_fresh(const struct share_state *state, uint32_t now)
{
    uint32_t pause = atomic_load(&state->pause);
    uint32_t age = now - atomic_load(&state->last);
    size_t held = haki_limit_used(), was = atomic_load(&state->held);
    size_t change = held > was ? held - was : was - held;

    return age < pause && (pause > EVERY || change < CHANGED);
}

uint32_t haki_share_watched(const struct hak_share *page)
{
    uint64_t until = haki_max(atomic_load(&page->sample_until),
                              atomic_load(&page->watch_until));
    uint64_t now = haki_os_clock();

    return until > now ? (uint32_t)haki_min((until - now) / MS + 1, WATCH_MOST)
                       : 0;
}

/* Somebody has asked: the background thread answers from now on. */
static void share_heed(const struct hak_share *page)
{
    uint32_t left = haki_share_watched(page);

    atomic_store(&haki_look_watched,
                 left != 0 ? haki_some_time(haki_os_tick() + left) : 0);
    if (left != 0) {
        haki_background_start();
    }
}

/* There is no page (yet). */
static void share_look_without(struct share_state *state, uint32_t now)
{
    haki_look_answer_all();
    if (state == NULL) {
        return;
    }
    if (atomic_load(&state->since) == 0) { /* a forked child's first look */
        haki_look_ask_at(NULL);
        atomic_store(&state->from, haki_limit_used());
        atomic_store(&state->since, haki_some_time(now));
    }
    if (!atomic_load(&state->tried) &&
        share_is_worth_it(atomic_load(&state->since), atomic_load(&state->from),
                          now)) {
        share_make(state, now);
    }
}

/* haki_look_share's; `leaving`: nobody will look again for long. */
static void share_look(uint32_t now, bool leaving)
{
    struct share_state *state = share_state_get(now);
    struct hak_share *page = state != NULL ? atomic_load(&state->page) : NULL;
    uint32_t asked;

    if (page == NULL) {
        share_look_without(state, now);
        return;
    }
    if (haki_live_is_due(&state->live, page, now)) {
        haki_live_look(&state->live, page, &state->file, now);
    }
    asked = atomic_load(&page->asked); /* once: readers go on asking */
    if (asked != atomic_load(&page->answered)) {
        share_heed(page);
        share_write(state, now, false);
    } else if (leaving || !share_is_fresh(state, now)) {
        share_write(state, now, leaving);
    } else {
        haki_look_answer(asked);
    }
}

/* Reads the environment as long as nobody else writes to it. */
__attribute__((constructor)) static void share_start(void)
{
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");

    if (runtime != NULL && strlen(runtime) < sizeof(share_runtime)) {
        strcpy(share_runtime, runtime);
    }
    share_began = haki_os_tick();
    haki_look_share = share_look;
    haki_unwind_prepare(); /* nothing may be loaded when somebody asks */
}

void haki_share_close(void)
{
    struct share_state *state = atomic_load(&share_state);

    if (state != NULL && atomic_load(&state->page) != NULL) {
        haki_shared_unlink(&state->file);
    }
}

__attribute__((destructor)) static void share_at_exit(void)
{
    haki_share_close();
}

#ifdef HAK_TESTING
struct hak_share *haki_share_page(void)
{
    struct share_state *state = atomic_load(&share_state);

    return state != NULL ? atomic_load(&state->page) : NULL;
}

const char *haki_share_path(void)
{
    return haki_share_page() != NULL ? atomic_load(&share_state)->file.path
                                     : NULL;
}
#endif
