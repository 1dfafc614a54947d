/*
 * hak_py_state.c - the adapter's start, its switches, sharing and limit.
 *
 * Everything here is called under the GIL, or, once shared, under the lock of
 * hak_py_module.c.
 */
#include "hak_py.h"

#define DOMAIN(index) [index] = {.hot = (void *)hak_py_none, .which = (index)}

struct hak_py hak_py = {
    .limit = HAK_PY_NO_LIMIT,
    .domains = {DOMAIN(HAK_PY_RAW), DOMAIN(HAK_PY_MEM), DOMAIN(HAK_PY_OBJ)}};

/* ---- options ---------------------------------------------------------------- */

static const struct hak_option_row rows[HAK_PY_OPTIONS] = {
#define HAK_OPTION HAK_OPTION_ROW
#include "../hak_py_options.def"
#undef HAK_OPTION
};

HAK_OPTIONS_TABLE(options, rows);

size_t hak_py_option(enum hak_py_option option)
{
    return haki_options_get(&options, option);
}

unsigned hak_py_mask_asked(void)
{
    static const unsigned masks[] = {1u << HAK_PY_OBJ | 1u << HAK_PY_MEM,
                                     0,
                                     1u << HAK_PY_OBJ,
                                     1u << HAK_PY_MEM,
                                     1u << HAK_PY_RAW,
                                     1u << HAK_PY_OBJ | 1u << HAK_PY_MEM |
                                         1u << HAK_PY_RAW};

    return masks[hak_py_option(HAK_PY_OPT_domains)];
}

/* Texts about what a user may set. */
struct line {
    const char *env, *values, *help;
    size_t initial;
    enum hak_option_type type;
};

#define HAK_OPTION(type, name, env, initial, least, most, words, help)         \
    {env, words, help, initial, HAK_OPTION_##type},
static const struct line own_lines[] = {
#include "../hak_py_options.def"
};
static const struct line core_lines[] = {
#include "settings/options.def"
};
#undef HAK_OPTION

/* Whether one of the core's options has no effect here, since we have a thread
 * of our own. */
static bool is_idle(unsigned row)
{
    return row == HAK_OPT_background_thread ||
           row == HAK_OPT_force_libc_alloc || row == HAK_OPT_deepbind ||
           row == HAK_OPT_bench_fast_mode || row == HAK_OPT_wrap_diag;
}

/* What the variable may be set to. */
static const char *values_of(const struct line *line)
{
    switch (line->type) {
    case HAK_OPTION_BOOL: return "0 1";
    case HAK_OPTION_SIZE: return "bytes, with K, M, G or T";
    case HAK_OPTION_SHARE: return "bytes, with K, M, G or T, or percent";
    case HAK_OPTION_DIR: return "an absolute path";
    case HAK_OPTION_FILE: return "a path";
    case HAK_OPTION_INT:
    case HAK_OPTION_WORD: break;
    }
    return line->values;
}

static bool append_line(PyObject *list, const struct line *line)
{
    PyObject *one = Py_BuildValue("(ssns)", line->env, values_of(line),
                                  (Py_ssize_t)line->initial, line->help);
    bool good = one != NULL && PyList_Append(list, one) == 0;

    Py_XDECREF(one);
    return good;
}

PyObject *hak_py_option_list(void)
{
    PyObject *list = PyList_New(0);
    bool good = list != NULL;

    for (unsigned i = 0; good && i < HAK_PY_OPTIONS; i++) {
        good = append_line(list, &own_lines[i]);
    }
    for (unsigned i = 0; good && i < HAK_OPTIONS; i++) {
        good = is_idle(i) || append_line(list, &core_lines[i]);
    }
    if (!good) {
        Py_CLEAR(list);
    }
    return list;
}

/* Values of HAK_PY_OPT_lanes and HAK_PY_OPT_seal, in the order of their words. */
enum { LANES_DEFAULT, LANES_TINY, LANES_ALL };
enum { SEAL_DEFAULT, SEAL_OFF, SEAL_FORK, SEAL_PAGES };

static size_t most_asked(void)
{
    return hak_py_option(HAK_PY_OPT_lanes) == LANES_ALL ? HAK_LANE_HUGE_MAX
                                                        : HAK_PY_TINY_MAX;
}

/* ---- start ------------------------------------------------------------------
 */

/* Whether forks seal. Otherwise a child that frees and allocates copies most of
 * its parent's memory. */
static bool seals_forks(void)
{
    return hak_py_option(HAK_PY_OPT_seal) != SEAL_OFF;
}

bool hak_py_freezes_forks(void)
{
    size_t seal = hak_py_option(HAK_PY_OPT_seal);

    return hak_py_enabled() != 0 && (seal == SEAL_DEFAULT || seal == SEAL_FORK);
}

/* Fills the table that maps a size to a bin. */
static void set_bins(struct hak_heap *heap)
{
    uint16_t *bins = hak_py_extra(heap)->bins;

    for (size_t i = 0; i < HAK_PY_SIZES; i++) {
        struct hak_bin *bin = haki_embed_bin(heap, hak_py_class(16 * i));

        bins[i] = (uint16_t)((char *)bin - (char *)heap);
    }
    bins[0] = bins[1];
}

static struct hak_heap *gil_heap(void)
{
    struct hak_heap *heap = haki_embed_new(HAK_EMBED_ONE_LOCK, NULL);

    if (heap != NULL) {
        hak_heap_seal_at_fork(heap, seals_forks());
        set_bins(heap);
    }
    return heap;
}

bool hak_py_start(void)
{
    if (hak_py.started) {
        return true;
    }
    haki_embed_stand_in(hak_py_none);
    haki_embed_stand_in(hak_py_threads);
    haki_embed_stand_in(hak_py_lent);
    haki_background_close(); /* the adapter has a thread of its own */
    hak_py.most = most_asked();
    if (!haki_embed_begin()) {
        hak_py.reason = "no address space could be had: see the message on "
                        "standard error";
        return false;
    }
    /* The hardened build's guards exist only in threads' heaps. */
    if (!HAK_HARD && !hak_py.shared) {
        hak_py.heap = gil_heap();
        if (hak_py.heap == NULL) {
            hak_py.reason = "there was no memory for a heap";
            return false;
        }
    }
    if (seals_forks()) {
        haki_thread_seal_forks();
    }
    hak_py.started = true;
    return true;
}

/* ---- switches --------------------------------------------------------------- */

/* Sequentially consistent with `shared`: see settle. */
static void set_hot(struct hak_py_domain *d, struct hak_heap *heap)
{
    __atomic_store_n(&d->hot, heap, __ATOMIC_SEQ_CST);
}

/* What d works on, as the rest of the state says. */
static struct hak_heap *hot_for(const struct hak_py_domain *d)
{
    struct hak_heap *heap = hak_py_heap();

    if (!d->on || hak_py.limit != HAK_PY_NO_LIMIT || d->which == HAK_PY_RAW) {
        return (void *)hak_py_none;
    }
    return heap != NULL ? heap : (void *)hak_py_threads;
}

/* Sets `hot` and `plain` as the rest of the state says. */
static void settle(void)
{
    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        struct hak_py_domain *d = &hak_py.domains[i];

        set_hot(d, hot_for(d));
        d->plain = d->on && i == HAK_PY_RAW && hak_py.limit == HAK_PY_NO_LIMIT;
    }
    /* If somebody has learned of a second interpreter meanwhile, that prevails.
     */
    if (hak_py.shared) {
        hak_py_share();
    }
}

void hak_py_switch(unsigned mask)
{
    bool whole = hak_py.whole || hak_py.profiled;

    hak_py.asked = mask;
    hak_py.most = whole ? HAK_LANE_HUGE_MAX : most_asked();
    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        struct hak_py_domain *d = &hak_py.domains[i];

        d->on = d->installed && (whole || (mask >> i & 1) != 0);
    }
    settle();
}

/* ---- a second interpreter ---------------------------------------------------- */

/* Switches d from the GIL's heap, if it works on that, to the threads'. */
static void share(struct hak_py_domain *d)
{
    struct hak_heap *now = hak_py_hot(d);

    while (now != (void *)hak_py_none && now != (void *)hak_py_threads &&
           !__atomic_compare_exchange_n(&d->hot, &now, (void *)hak_py_threads,
                                        false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {
    }
}

void hak_py_share(void)
{
    atomic_store(&hak_py.shared, true);
    share(&hak_py.domains[HAK_PY_MEM]);
    share(&hak_py.domains[HAK_PY_OBJ]);
}

#if PY_VERSION_HEX >= 0x030c0000

/* Interpreter states have 384 KB in 3.12, 195 KB in 3.13. */
#define SUSPECT_LEAST (64 * HAK_KIB)

/* The calling thread is in pymalloc, which passes a request of obj or mem to
 * raw. */
static __thread bool is_object;

void hak_py_suspect(size_t size)
{
    if (size >= SUSPECT_LEAST && !is_object && !hak_py.shared) {
        hak_py_share();
    }
}

void *hak_py_saved_calloc(const struct hak_py_domain *d, size_t size)
{
    bool outer = is_object;
    void *p;

    is_object = outer || d->which != HAK_PY_RAW;
    p = d->saved.calloc(d->saved.ctx, 1, size);
    is_object = outer;
    return p;
}

/* Whether the calling thread holds the main interpreter's GIL. */
static bool is_main(void)
{
#if PY_VERSION_HEX >= 0x030d0000
    PyThreadState *state = PyThreadState_GetUnchecked();
#else
    PyThreadState *state = _PyThreadState_UncheckedGet();
#endif

    return state != NULL && state->interp == PyInterpreterState_Main();
}

void hak_py_retire(void)
{
    struct hak_heap *heap = __atomic_load_n(&hak_py.heap, __ATOMIC_ACQUIRE);

    if (HAK_UNLIKELY(heap != NULL) && is_main()) {
        hak_py_loan_await();
        heap = __atomic_exchange_n(&hak_py.heap, NULL, __ATOMIC_ACQ_REL);
    } else {
        heap = NULL;
    }
    if (HAK_UNLIKELY(heap != NULL)) {
        haki_thread_adopt(heap);
    }
}

#else

void hak_py_suspect(size_t size)
{
    (void)size;
}

void *hak_py_saved_calloc(const struct hak_py_domain *d, size_t size)
{
    return d->saved.calloc(d->saved.ctx, 1, size);
}

void hak_py_retire(void)
{
}

#endif

/* ---- the limit --------------------------------------------------------------- */

/*
 * Handling a MemoryError takes some memory: a few small objects or, if every
 * size counts, enough to write a traceback or a log entry.
 */
#define RESERVE_LEAST (64 * HAK_KIB)
#define RESERVE_MOST (4 * HAK_MIB)
#define RESERVE_SHARE 4 /* of the limit */
#define RESERVE_BLOCK 4 /* of the reserve, a block at most */

static void set_reserve(void)
{
    hak_py.reserve = RESERVE_LEAST;
    hak_py.reserve_most = HAK_LANE_TINY_MAX;
    if (hak_py.whole) {
        hak_py.reserve =
            haki_max(RESERVE_LEAST,
                     haki_min(hak_py.limit / RESERVE_SHARE, RESERVE_MOST));
        hak_py.reserve_most = hak_py.reserve / RESERVE_BLOCK;
    }
}

bool hak_py_set_limit(size_t limit, bool whole)
{
    const PyMemAllocatorEx *raw = &hak_py.domains[HAK_PY_RAW].saved;

    if (limit != HAK_PY_NO_LIMIT) {
        size_t live = hak_py_live();

        if (limit < live) {
            return false;
        }
        if (hak_py.limit == HAK_PY_NO_LIMIT) {
            atomic_store(&hak_py.live, live);
        }
    }
    hak_py.limit = limit;
    hak_py.whole = whole && limit != HAK_PY_NO_LIMIT;
    hak_py.libc = hak_py.whole && hak_py_is_libc(raw) ? raw->malloc : NULL;
    set_reserve();
    hak_py_switch(hak_py.asked);
    return true;
}

/* ---- bytes in use ------------------------------------------------------------ */

size_t hak_py_live(void)
{
    hak_stats_t stats = {.size = sizeof(stats)};

    hak_stats(&stats);
    return stats.tiny_live_bytes + stats.pool_live_bytes +
           stats.ace_live_bytes + stats.huge_live_bytes;
}

void hak_py_raise_peak(size_t live)
{
    size_t peak = atomic_load_explicit(&hak_py.peak, memory_order_relaxed);

    while (live > peak &&
           !atomic_compare_exchange_weak(&hak_py.peak, &peak, live)) {
    }
}

void hak_py_sample(void)
{
    struct hak_heap *heap = hak_py_heap();
    bool quick = heap != NULL && !hak_py.domains[HAK_PY_RAW].on;

    hak_py_raise_peak(quick ? haki_embed_live(heap) : hak_py_live());
}
