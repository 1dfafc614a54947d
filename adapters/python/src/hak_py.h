/*
 * hak_py.h - the state of the Python adapter.
 *
 * A domain of CPython's allocators (raw, mem, obj) that is installed calls our
 * functions for good; what they do is decided by `hot`, the one word that the
 * hot paths of mem and obj look at:
 *
 *   - the GIL's heap: one explicit heap for all of the runtime, served in
 *     line, without TLS and atomics, by whoever holds the one GIL;
 *   - hak_py_threads: there is more than one GIL, and every thread works on a
 *     heap of its own, as the raw domain always does; the hardened build, whose
 *     guards are those of threads' heaps, begins there;
 *   - hak_py_none: the domain is off, or there is a limit.
 *
 * The last three are heaps whose bins are empty and whose tag matches no slab:
 * every request and every free then comes to hak_py_slow.c, which begins with
 * the thread's heap in one case, and in the others looks at the rest of the
 * state.
 *
 *   - hak_py_lent: the GIL's heap is on loan to the thread that gives memory back
 *     (hak_py_loan.c), which took it while nobody held the GIL.
 *
 *     GIL's heap --a limit is set--> none --and removed--> GIL's heap
 *     GIL's heap --a second interpreter (3.12 and later)--> threads, for good
 *     GIL's heap --nobody has the GIL--> lent --a moment later--> GIL's heap
 *
 * Who learns of a second interpreter (hak_py_suspect) may not hold the one GIL,
 * so that it only turns the hot paths off; the GIL's heap is left to whoever is
 * in it, and the next thread in a slow path that does hold that GIL makes it
 * its own.
 *
 * Blocks are told by their address, so that whoever frees one, in whatever
 * state, does it right; one outside our range is handed on to the allocator
 * that was there before us (`saved`). A block of ours that reaches pymalloc
 * comes home through raw, whose free and realloc are always ours
 * (hak_py_hook.c).
 *
 * Our functions don't use their ctx, which stays the saved allocator's: raw is
 * used without the GIL while they are installed one by one.
 *
 * Counting costs an instruction for mem and raw and none for obj, the busiest
 * domain: what a heap's bins gave out and mem and raw did not count is obj's.
 */
#ifndef HAK_PY_H
#define HAK_PY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <hakmem.h>

#include "embed.h"

/* In the order of PyMemAllocatorDomain. */
enum hak_py_domains { HAK_PY_RAW, HAK_PY_MEM, HAK_PY_OBJ, HAK_PY_DOMAINS };

/* Why a request went to the saved allocator. */
enum hak_py_reason {
    HAK_PY_LARGE,  /* HAKMEM_PYTHON_LANES=tiny: more than 1024 B */
    HAK_PY_MEMORY, /* the core had no memory, or no address space */
    HAK_PY_OFF,    /* the domain was disabled */
    HAK_PY_REASONS
};

struct hak_py_domain {
    struct hak_heap *hot; /* see above; raw does not use it */
    unsigned which;       /* const: its place */
    bool plain;           /* raw: on, and no limit */
    bool on;
    bool installed;
    PyMemAllocatorEx saved;
    /* any thread */
    _Atomic(uint64_t) fallback[HAK_PY_REASONS];
    _Atomic(uint64_t) foreign; /* blocks of others, freed or resized */
    _Atomic(uint64_t) refused; /* by the limit */
};

/* The mask of all domains. */
#define HAK_PY_ALL ((1u << HAK_PY_DOMAINS) - 1)

#define HAK_PY_NO_LIMIT ((size_t)PTRDIFF_MAX)
/* Of HAKMEM_PYTHON_LIMIT, in which an interpreter has begun. */
#define HAK_PY_LEAST_LIMIT HAK_MIB

struct hak_py {
    struct hak_py_domain domains[HAK_PY_DOMAINS];
    struct hak_heap *heap; /* the GIL's; NULL: none yet, or none any more */
    size_t most;           /* larger sizes are the saved allocator's */
    unsigned asked;        /* mask: the domains that the program wants on */
    bool started;
    atomic_bool shared; /* see hak_py_heap */
    atomic_bool lent;   /* the same: the GIL's heap is on loan, or may be */
    const char *reason; /* why nothing is enabled, or NULL */
    /*
     * The limit, and the bytes of our live blocks while there is one. If it is
     * one for all memory (`whole`), every domain is on and every size is ours
     * meanwhile, so that what is ours is all there is to count.
     */
    size_t limit;
    bool whole;
    void *(*libc)(void *ctx,
                  size_t size);   /* meanwhile: raw's, if it is malloc */
    size_t reserve, reserve_most; /* beyond it, once met, by blocks so large */
    _Atomic(size_t) live;
    atomic_bool met;      /* and not yet left far behind */
    _Atomic(size_t) peak; /* the most that hak_py_sample has seen */
};
extern HAK_HIDDEN struct hak_py hak_py;

/*
 * What stands behind every heap, in the rest of its first page. `bins` leads
 * from (size + 15) / 16 to a bin's distance from the heap.
 */
#define HAK_PY_SIZES (HAK_LANE_TINY_MAX / 16 + 1)

struct hak_py_extra {
    uint64_t tiny[HAK_PY_OBJ];   /* blocks given out to raw and mem */
    uint64_t large[HAK_PY_OBJ];  /* so far: HAK_EMBED_COUNTERS words */
    uint16_t bins[HAK_PY_SIZES]; /* the GIL's heap only */
};
_Static_assert(sizeof(struct hak_py_extra) <= HAK_EMBED_EXTRA,
               "it fits behind the heap");
_Static_assert(offsetof(struct hak_py_extra, bins) ==
                   HAK_EMBED_COUNTERS * sizeof(uint64_t),
               "what heaps count is kept when they end");

HAK_INLINE struct hak_py_extra *hak_py_extra(struct hak_heap *heap)
{
    return haki_embed_extra(heap);
}

/* Pages, as every heap has. */
extern HAK_HIDDEN char hak_py_none[HAK_PAGE], hak_py_threads[HAK_PAGE];
extern HAK_HIDDEN char hak_py_lent[HAK_PAGE];

HAK_INLINE unsigned hak_py_class(size_t size)
{
    return haki_embed_class_16(size);
}

/* What the hot paths of mem and obj work on; it changes at any time. */
HAK_INLINE struct hak_heap *hak_py_hot(const struct hak_py_domain *d)
{
    return __atomic_load_n(&d->hot, __ATOMIC_RELAXED);
}

/* Whether d's requests are those of each thread's own heap. */
HAK_INLINE bool hak_py_is_threads(const struct hak_py_domain *d)
{
    return hak_py_hot(d) == (struct hak_heap *)(void *)hak_py_threads;
}

/* Waits until the GIL's heap is no longer on loan; its holder calls it. */
HAK_NOINLINE void hak_py_loan_await(void);

/* The GIL's heap, to its holder; NULL: each thread works on its own. */
HAK_INLINE struct hak_heap *hak_py_heap(void)
{
    if (HAK_UNLIKELY(atomic_load_explicit(&hak_py.shared,
                                          memory_order_acquire))) {
        return NULL;
    }
    if (HAK_UNLIKELY(atomic_load_explicit(&hak_py.lent,
                                          memory_order_acquire))) {
        hak_py_loan_await();
    }
    return hak_py.heap;
}

/* The most bytes that Tiny serves; the hardened build adds a guard to each. */
#define HAK_PY_TINY_MAX (HAK_LANE_TINY_MAX - HAK_GUARD_BYTES)

/* Counts a block that the heap gave out to d; obj's are the rest. */
HAK_INLINE void hak_py_count(struct hak_heap *heap,
                             const struct hak_py_domain *d, size_t size)
{
    if (d->which < HAK_PY_OBJ) {
        struct hak_py_extra *extra = hak_py_extra(heap);

        *(size <= HAK_PY_TINY_MAX ? &extra->tiny[d->which]
                                  : &extra->large[d->which]) += 1;
    }
}

/* ---- hak_py_serve.c: the functions that CPython calls --------------------- */

extern HAK_HIDDEN const PyMemAllocatorEx hak_py_functions[HAK_PY_DOMAINS];

/* ---- hak_py_slow.c: what they leave --------------------------------------- */

void *hak_py_malloc(struct hak_py_domain *d, size_t size);
void *hak_py_calloc(struct hak_py_domain *d, size_t count, size_t size);
void *hak_py_realloc(struct hak_py_domain *d, void *p, size_t size);
void hak_py_free(struct hak_py_domain *d, void *p);

/* The look at a bin of the GIL's heap that a push has asked for. */
void hak_py_look(struct hak_bin *bin);

/* ---- hak_py_gil.c: who has the GIL ----------------------------------------- */

/*
 * Finds the word that says whether somebody holds the GIL of the main
 * interpreter, and tries it; lets go of the GIL for a moment. Called by its
 * holder. False: it was not found, and nobody can borrow the heap.
 */
bool hak_py_gil_find(void);

/* Whether somebody holds it, or it is not known. Any thread. */
bool hak_py_gil_is_held(void);

/* ---- hak_py_loan.c: the GIL's heap in another thread's hands --------------- */

/*
 * Takes the GIL's heap, without the GIL. False: somebody holds that, or there is
 * no such heap (any more). Who takes the GIL meanwhile and needs the heap waits
 * for hak_py_loan_end.
 */
bool hak_py_loan_begin(void);
void hak_py_loan_end(void);

/* ---- hak_py_idle.c: the thread that gives memory back ---------------------- */

/* 0: free memory that waits is noticed; else a thread runs, or none may. */
extern HAK_HIDDEN _Atomic(uint32_t) hak_py_idle_seen;

/* Whether there is something to give back: an estimate from a few words. */
bool hak_py_idle_is_due(void);

/* Starts the thread, unless it runs or may not. Keeps errno. */
HAK_NOINLINE void hak_py_idle_start(void);

/* On slow paths, after something was freed. */
HAK_INLINE void hak_py_idle_notice(void)
{
    if (HAK_UNLIKELY(atomic_load_explicit(&hak_py_idle_seen,
                                          memory_order_relaxed) == 0 &&
                     hak_py_idle_is_due())) {
        hak_py_idle_start();
    }
}

/* How many of others' blocks are freed before that is a reason to look. */
#define HAK_PY_NOTICE_FOREIGN 64

/* From time to time: in a child of _Fork nobody else says the thread is gone. */
void hak_py_idle_check(void);

/* Whether there may be a thread; none does when it returns. */
void hak_py_idle_allow(bool on);
bool hak_py_idle_is_allowed(void);

/*
 * No thread from here on, the one there is being gone from the kernel's list
 * too, until hak_py_idle_release is called as often. A child begins anew.
 */
void hak_py_idle_hold(void);

/* Starts the thread if there was one. `later`: not yet, but by
 * hak_py_idle_resume, or when something is noticed after a while; whether there
 * was one. */
bool hak_py_idle_release(bool later);
void hak_py_idle_resume(void);

/* Fork handlers, once. */
void hak_py_idle_watch_forks(void);

/* ---- hak_py_copy.c --------------------------------------------------------- */

/* Copies n bytes, as memcpy; for 1 KB and more. */
extern HAK_HIDDEN void (*hak_py_copy)(void *to, const void *from, size_t n);

/* ---- hak_py_spare.c: what limits allow ------------------------------------- */

/*
 * Whether HAKMEM_LIMIT, which is set, leaves room for a block of `size` bytes of
 * the heap (NULL: the thread's), but for what is kept back.
 */
bool hak_py_limit_spares(struct hak_heap *heap, size_t size);

/*
 * Whether the module's own limit, which is set, allows d `size` more bytes; if
 * not, that is counted. Once the limit was met, blocks of a moderate size may go
 * beyond it by the reserve. That ends when so much has been freed that the limit
 * may be met anew.
 */
bool hak_py_admit(struct hak_py_domain *d, size_t size);

/* The bytes of the block p, of ours, as hak_py_live sums them up. */
size_t hak_py_bytes_of(const void *p);

/* ---- hak_py_state.c: switching between the states above ------------------- */

/* Makes the GIL's heap and reads the options. False: *reason says why not. */
bool hak_py_start(void);

/* Turns the domains of a mask on, and all others off. */
void hak_py_switch(unsigned mask);

/*
 * From 3.12 on: a request of this size was made of raw's calloc. The interpreter
 * states that are made while the program runs come from there, before anything
 * else of theirs, and little else is so large: what obj and mem were asked for
 * first, bytes(100000) for example, is none (hak_py_saved_calloc).
 */
void hak_py_suspect(size_t size);

/* The saved allocator's calloc, for a request that was made of d. */
void *hak_py_saved_calloc(const struct hak_py_domain *d, size_t size);

/* From here on there may be more than one GIL. Any thread. */
void hak_py_share(void);

/* When shared, by mem and obj: the GIL's heap is ours if we hold that GIL. */
void hak_py_retire(void);

/*
 * Sets the limit, HAK_PY_NO_LIMIT: none; for all memory if `whole`, when all
 * domains are installed. False: more than that is in use.
 */
bool hak_py_set_limit(size_t limit, bool whole);

/* Bytes of our blocks in use, in all domains. */
size_t hak_py_live(void);

/* Raises the peak if need be. */
void hak_py_sample(void);

/* ---- hak_py_site.c: where in a domain ------------------------------------- */

/* Where a domain's functions stand: in `now`, or beneath a hook. */
struct hak_py_site {
    PyMemAllocatorEx now;
    PyMemAllocatorEx *below; /* NULL: not beneath anything */
};

HAK_INLINE const PyMemAllocatorEx *
hak_py_current(const struct hak_py_site *site)
{
    return site->below != NULL ? site->below : &site->now;
}

enum hak_py_found {
    HAK_PY_FOUND,
    HAK_PY_FOUND_DEBUG,    /* the debug hooks are there */
    HAK_PY_FOUND_NOTHING,  /* beneath tracemalloc */
    HAK_PY_FOUND_NO_MEMORY /* of hak_py_install: it could not begin */
};

/* Whether tracemalloc traces. -1: a Python exception. */
int hak_py_is_tracing(void);

/* Whether raw, which is that, is CPython's own: malloc and free. */
bool hak_py_is_libc(const PyMemAllocatorEx *now);

/* The lowest place in a domain: beneath all hooks that can be looked beneath. */
enum hak_py_found hak_py_find_site(unsigned which, bool tracing,
                                   struct hak_py_site *site);

void hak_py_put(unsigned which, const struct hak_py_site *site,
                const PyMemAllocatorEx *functions);

/* Whether a domain that is on is served by us, and nobody has put another
 * allocator in our place. */
bool hak_py_answers(unsigned which);

/* The same of one that may be off, `saved` being what it hands others' blocks
 * to: proved by a request. Under the lock of hak_py_module.c. */
bool hak_py_is_there(unsigned which, PyMemAllocatorEx *saved);

/* ---- hak_py_hook.c: installing -------------------------------------------- */

/* Whether these are the functions that bring our blocks home from raw. */
bool hak_py_is_home(const PyMemAllocatorEx *now);

/*
 * Installs our functions in the domains of a mask where they are not yet; not
 * HAK_PY_FOUND: nothing is changed, and hak_py.reason says why unless it is
 * HAK_PY_FOUND_NOTHING. Lets go of the GIL at no time.
 */
enum hak_py_found hak_py_install(unsigned mask, bool tracing);

/* hak_py_install, and turns the mask on. False: HAK_PY_FOUND_NOTHING. */
bool hak_py_enable(unsigned mask, bool tracing);

/*
 * Forgets the domains where our functions are no more: a hook has put back what
 * it found before us, or a program has ended its interpreter and begun another
 * one, which gets CPython's own allocators (3.12 and later). True: there were
 * such.
 */
bool hak_py_forget(void);

/* The domains that are on HAKMEM, a mask; if it is 0, why, else NULL. */
unsigned hak_py_enabled(void);
const char *hak_py_why(void);

/* ---- hak_py_immortal.c ----------------------------------------------------- */

/* PEP 683's counts, and a collector that lists what it knows; not where Python
 * itself checks its counts. */
#if PY_VERSION_HEX >= 0x030c0000 && !defined(Py_GIL_DISABLED) &&               \
    !defined(Py_DEBUG)
#define HAK_PY_IMMORTAL 1

/*
 * Makes what the interpreter's containers refer to immortal, where its type is
 * one of `known`, a tuple of types, or a class of Python's made from one of
 * them; some_class is any class made in Python. Returns how many objects it
 * made immortal; NULL: MemoryError.
 */
PyObject *hak_py_immortal(PyObject *known, PyTypeObject *some_class);
#else
#define HAK_PY_IMMORTAL 0
#endif

/* Of a list, a list of those with a finalizer that has not run, without
 * generators. NULL: MemoryError. */
PyObject *hak_py_unfinished(PyObject *objects);

/* Whether a forked child's collector leaves its parent's objects alone. */
bool hak_py_freezes_forks(void);

/* ---- hak_py_options.def ---------------------------------------------------- */

enum hak_py_option {
#define HAK_OPTION(type, name, ...) HAK_PY_OPT_##name,
#include "../hak_py_options.def"
#undef HAK_OPTION
    HAK_PY_OPTIONS
};
size_t hak_py_option(enum hak_py_option option);

/* The words of HAKMEM_PYTHON, in their order, as masks. */
unsigned hak_py_mask_asked(void);

/* Every variable that holds, as tuples (name, values, default, help). */
PyObject *hak_py_option_list(void);

/* ---- hak_py_stats.c -------------------------------------------------------- */

PyObject *hak_py_stats(bool classes);
uint64_t hak_py_blocks(void);

#endif /* HAK_PY_H */
