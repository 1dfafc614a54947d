/*
 * hak_py.h - the state of the Python adapter.
 *
 * Once installed, a domain of CPython's allocators (raw, mem, obj) calls our
 * functions for good; what these do is decided by `hot`, the only word that the
 * hot paths of mem and obj read:
 *
 *   - the GIL's heap: one explicit heap for the whole runtime, served inline,
 *     without TLS and atomics, by whoever holds the only GIL;
 *   - hak_py_threads: there is more than one GIL, and every thread works on a
 *     heap of its own, as the raw domain always does; the hardened build, whose
 *     guards only threads' heaps have, begins in this state;
 *   - hak_py_none: the domain is off, or there is a limit.
 *
 * The last three are heaps with empty bins and a tag that matches no slab:
 * every request and every free then goes to hak_py_slow.c, which in one case
 * starts with the thread's heap, and in the others looks at the rest of the
 * state.
 *
 *   - hak_py_lent: the GIL's heap is lent to the thread that gives memory back
 *     (hak_py_loan.c), which took it while nobody held the GIL.
 *
 *     GIL's heap --a limit is set--> none --and removed--> GIL's heap
 *     GIL's heap --a second interpreter (3.12 and later)--> threads, for good
 *     GIL's heap --nobody has the GIL--> lent --a moment later--> GIL's heap
 *
 * The thread that learns of a second interpreter (hak_py_suspect) may not hold
 * the only GIL, so it just turns the hot paths off. Whoever is using the GIL's
 * heap goes on, and the next thread that holds that GIL in a slow path makes
 * the heap its own.
 *
 * Blocks are recognised by their address, so frees are right in every state; a
 * block outside our range is handed on to the allocator that was there before
 * us (`saved`). A block of ours that reaches pymalloc comes home through raw,
 * whose free and realloc are always ours (hak_py_hook.c).
 *
 * Our functions don't use their ctx, which stays the saved allocator's, because
 * raw is used without the GIL while they are being installed one by one.
 *
 * Counting costs one instruction for mem and raw and none for obj, the busiest
 * domain: blocks that a heap's bins gave out and mem and raw did not count are
 * obj's.
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
    unsigned which;       /* const: its index */
    bool plain;           /* raw: on, and no limit */
    bool on;
    bool installed;
    PyMemAllocatorEx saved;
    /* any thread */
    _Atomic(uint64_t) fallback[HAK_PY_REASONS];
    _Atomic(uint64_t) foreign; /* other allocators' blocks, freed or resized */
    _Atomic(uint64_t) refused; /* by the limit */
};

/* The mask of all domains. */
#define HAK_PY_ALL ((1u << HAK_PY_DOMAINS) - 1)

#define HAK_PY_NO_LIMIT ((size_t)PTRDIFF_MAX)
/* The least HAKMEM_PYTHON_LIMIT: an interpreter must be able to start. */
#define HAK_PY_LEAST_LIMIT HAK_MIB

struct hak_py {
    struct hak_py_domain domains[HAK_PY_DOMAINS];
    struct hak_heap *heap; /* the GIL's; NULL: not yet, or no longer */
    size_t most;           /* larger sizes go to the saved allocator */
    unsigned asked;        /* mask: the domains that the program wants on */
    bool started;
    atomic_bool shared; /* see hak_py_heap */
    atomic_bool lent;   /* likewise: the GIL's heap is lent, or may be */
    const char *reason; /* why nothing is enabled, or NULL */
    /*
     * The limit, and the bytes of our live blocks while there is one. While it
     * applies to all memory (`whole`), every domain is on and every size is
     * ours, so counting our blocks is enough.
     */
    size_t limit;
    bool whole;
    bool
        profiled; /* a profile runs: the same domains and sizes as with `whole` */
    void *(*libc)(void *ctx,
                  size_t size);   /* if `whole`: raw's, if it is malloc */
    size_t reserve, reserve_most; /* beyond it, once reached; largest block */
    _Atomic(size_t) live;
    atomic_bool met;      /* and live bytes are not yet well below it */
    _Atomic(size_t) peak; /* the most that hak_py_sample has seen */
};
extern HAK_HIDDEN struct hak_py hak_py;

/*
 * What we keep behind every heap, in the rest of its first page. `bins` maps
 * (size + 15) / 16 to a bin's distance from the heap.
 */
#define HAK_PY_SIZES (HAK_LANE_TINY_MAX / 16 + 1)

struct hak_py_extra {
    uint64_t tiny[HAK_PY_OBJ];   /* blocks given out to raw and mem */
    uint64_t large[HAK_PY_OBJ];  /* up to here: HAK_EMBED_COUNTERS words */
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

/* A page each, as every heap has. */
extern HAK_HIDDEN char hak_py_none[HAK_PAGE], hak_py_threads[HAK_PAGE];
extern HAK_HIDDEN char hak_py_lent[HAK_PAGE];

HAK_INLINE unsigned hak_py_class(size_t size)
{
    return haki_embed_class_16(size);
}

/* What the hot paths of mem and obj work on; it may change at any time. */
HAK_INLINE struct hak_heap *hak_py_hot(const struct hak_py_domain *d)
{
    return __atomic_load_n(&d->hot, __ATOMIC_RELAXED);
}

/* Whether d's requests go to each thread's own heap. */
HAK_INLINE bool hak_py_is_threads(const struct hak_py_domain *d)
{
    return hak_py_hot(d) == (struct hak_heap *)(void *)hak_py_threads;
}

/* Waits until the GIL's heap is no longer lent; called by the GIL's holder. */
HAK_NOINLINE void hak_py_loan_await(void);

/* The GIL's heap, for the GIL's holder; NULL: each thread works on its own
 * heap. */
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

/* The most bytes that Tiny serves; the hardened build adds a guard to each
 * block. */
#define HAK_PY_TINY_MAX (HAK_LANE_TINY_MAX - HAK_GUARD_BYTES)

/* Counts a block that the heap gave out to d; the rest are obj's. */
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
 * Finds the word that says whether somebody holds the main interpreter's GIL,
 * and tests it; releases the GIL for a moment. Called by the GIL's holder.
 * False: it was not found, and nobody can borrow the heap.
 */
bool hak_py_gil_find(void);

/* Whether somebody holds it, or that is unknown. Any thread. */
bool hak_py_gil_is_held(void);

/* ---- hak_py_loan.c: lending the GIL's heap ---------------------------------
 */

/*
 * Takes the GIL's heap without the GIL. False: somebody holds the GIL, or there
 * is no such heap (any more). A thread that takes the GIL meanwhile and needs
 * the heap waits for hak_py_loan_end.
 */
bool hak_py_loan_begin(void);
void hak_py_loan_end(void);

/* ---- hak_py_idle.c: the thread that gives memory back ---------------------- */

/* 0: waiting memory should be noticed; otherwise a thread runs, or none may. */
extern HAK_HIDDEN _Atomic(uint32_t) hak_py_idle_seen;

/* Whether there is something to give back: an estimate from a few words. */
bool hak_py_idle_is_due(void);

/* Starts the thread, unless it runs or may not. Keeps errno. */
HAK_NOINLINE void hak_py_idle_start(void);

/* Called on slow paths, after something was freed. */
HAK_INLINE void hak_py_idle_notice(void)
{
    if (HAK_UNLIKELY(atomic_load_explicit(&hak_py_idle_seen,
                                          memory_order_relaxed) == 0 &&
                     hak_py_idle_is_due())) {
        hak_py_idle_start();
    }
}

/* How many blocks of other allocators are freed before we look. */
#define HAK_PY_NOTICE_FOREIGN 64

/* Called from time to time: in a child of _Fork nothing else says that the
 * thread is gone. */
void hak_py_idle_check(void);

/* Sets whether there may be a thread; if not, there is none when it returns. */
void hak_py_idle_allow(bool on);
bool hak_py_idle_is_allowed(void);

/*
 * No thread from here on until hak_py_idle_release is called as often; an
 * existing one is gone, from the kernel's list too. A forked child starts
 * afresh.
 */
void hak_py_idle_hold(void);

/* Restarts the thread if there was one. `later`: not yet, but in
 * hak_py_idle_resume, or when something is noticed after a while. Returns
 * whether there was one. */
bool hak_py_idle_release(bool later);
void hak_py_idle_resume(void);

/* Installs fork handlers, once. */
void hak_py_idle_watch_forks(void);

/* ---- hak_py_copy.c --------------------------------------------------------- */

/* Copies n bytes like memcpy; for 1 KB and more. */
extern HAK_HIDDEN void (*hak_py_copy)(void *to, const void *from, size_t n);

/* ---- hak_py_spare.c: what limits allow ------------------------------------- */

/*
 * Whether HAKMEM_LIMIT, which is set, leaves room for a block of `size` bytes
 * of the heap (NULL: the thread's) beside what is kept back.
 */
bool hak_py_limit_spares(struct hak_heap *heap, size_t size);

/*
 * Whether the module's own limit, which is set, allows d `size` more bytes;
 * counts refusals. Once the limit has been reached, blocks of moderate size may
 * exceed it by the reserve, until so much has been freed that the limit may be
 * reached again.
 */
bool hak_py_admit(struct hak_py_domain *d, size_t size);

/* The bytes of p, a block of ours, as summed up by hak_py_live. */
size_t hak_py_bytes_of(const void *p);

/* ---- hak_py_state.c: switching between the states above ------------------- */

/* Makes the GIL's heap and reads the options. False: *reason says why not. */
bool hak_py_start(void);

/* Turns the domains of a mask on, and all others off. */
void hak_py_switch(unsigned mask);

/*
 * From 3.12 on: raw's calloc got a request of this size. Interpreter states
 * made while the program runs come from there, before anything else of theirs,
 * and little else is that large. A request that was first made of obj or mem,
 * such as bytes(100000), does not count (hak_py_saved_calloc).
 */
void hak_py_suspect(size_t size);

/* The saved allocator's calloc, for a request made of d. */
void *hak_py_saved_calloc(const struct hak_py_domain *d, size_t size);

/* From here on there may be more than one GIL. Any thread. */
void hak_py_share(void);

/* Called by mem and obj when shared: takes over the GIL's heap if we hold that
 * GIL. */
void hak_py_retire(void);

/*
 * Sets the limit (HAK_PY_NO_LIMIT: none), for all memory if `whole`; then all
 * domains must be installed. False: more than that is in use.
 */
bool hak_py_set_limit(size_t limit, bool whole);

/* Bytes of our blocks in use, in all domains. */
size_t hak_py_live(void);

/* Raises the peak if necessary: to what is in use now; to what was found so. */
void hak_py_sample(void);
void hak_py_raise_peak(size_t live);

/* ---- hak_py_site.c: where in a domain ------------------------------------- */

/* Where a domain's functions are installed: in `now`, or beneath a hook. */
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
    HAK_PY_FOUND_NO_MEMORY /* from hak_py_install: it could not begin */
};

/* Whether tracemalloc is tracing. -1: a Python exception. */
int hak_py_is_tracing(void);

/* Whether `now`, raw's functions, are CPython's own: malloc and free. */
bool hak_py_is_libc(const PyMemAllocatorEx *now);

/* The lowest place in a domain: beneath all hooks that we can get beneath. */
enum hak_py_found hak_py_find_site(unsigned which, bool tracing,
                                   struct hak_py_site *site);

void hak_py_put(unsigned which, const struct hak_py_site *site,
                const PyMemAllocatorEx *functions);

/* Whether we serve a domain that is on, so nobody has put another allocator in
 * our place. */
bool hak_py_answers(unsigned which);

/* The same for a domain that may be off; `saved` is what it hands others'
 * blocks to. Proved by a request. Under the lock of hak_py_module.c. */
bool hak_py_is_there(unsigned which, PyMemAllocatorEx *saved);

/* ---- hak_py_hook.c: installing -------------------------------------------- */

/* Whether these functions are the ones that bring our blocks home from raw. */
bool hak_py_is_home(const PyMemAllocatorEx *now);

/*
 * Installs our functions in those domains of a mask where they are not yet.
 * Unless it returns HAK_PY_FOUND nothing is changed, and hak_py.reason says
 * why, except for HAK_PY_FOUND_NOTHING. Never releases the GIL.
 */
enum hak_py_found hak_py_install(unsigned mask, bool tracing);

/* Calls hak_py_install and turns the mask on. False: HAK_PY_FOUND_NOTHING. */
bool hak_py_enable(unsigned mask, bool tracing);

/*
 * Forgets domains that no longer have our functions: a hook has restored what
 * it found before us, or a program has ended its interpreter and started
 * another one, which gets CPython's own allocators (3.12 and later). True:
 * there were such domains.
 */
bool hak_py_forget(void);

/* The mask of the domains that are on HAKMEM; if it is 0, why, otherwise NULL.
 */
unsigned hak_py_enabled(void);
const char *hak_py_why(void);

/* ---- hak_py_immortal.c ----------------------------------------------------- */

/* Needs PEP 683's counts and a collector that can list its objects; not for
 * builds in which Python itself checks its counts. */
#if PY_VERSION_HEX >= 0x030c0000 && !defined(Py_GIL_DISABLED) &&               \
    !defined(Py_DEBUG)
#define HAK_PY_IMMORTAL 1

/*
 * Makes immortal what the interpreter's containers refer to, if its type is one
 * of `known`, a tuple of types, or a Python class derived from one of them;
 * some_class is any class made in Python. Returns the number of objects made
 * immortal; NULL: MemoryError.
 */
PyObject *hak_py_immortal(PyObject *known, PyTypeObject *some_class);
#else
#define HAK_PY_IMMORTAL 0
#endif

/* Returns a list of those objects in a list, other than generators, whose
 * finalizer has not run. NULL: MemoryError. */
PyObject *hak_py_unfinished(PyObject *objects);

/* Whether the collector of a forked child leaves the parent's objects alone. */
bool hak_py_freezes_forks(void);

/* ---- hak_py_profile.c ------------------------------------------------------- */

/* From here on samples have Python's frames: called by Python code, under the GIL. */
void hak_py_profile_frames(bool wanted);

/* Guards a block in so many bytes from here on, 0: none; *before: as it was. False: no
 * memory. Under that lock, as what follows. */
bool hak_py_guard(size_t rate, size_t *before);

/*
 * A profile begins, one of any number: a sample each `rate` bytes, unless others
 * run and have set that. `runs`, a str: the file whose functions run a program and are
 * no part of it. False: no memory. All under the lock of hak_py_module.c.
 */
bool hak_py_profile_begin(size_t rate, PyObject *runs);
void hak_py_profile_end(void);

/* The rate of those that run; 0: none does. */
size_t hak_py_profile_rate(void);

/* A copy of all sums as of now, in a capsule; NULL: an exception. */
PyObject *hak_py_profile_read(void);

/* A copy of what is more in one than in an earlier one; NULL: an exception. */
PyObject *hak_py_profile_grown(PyObject *later, PyObject *earlier);

/* Writes a copy, in one of hakmem.h's formats. False: an exception. */
bool hak_py_profile_write(PyObject *capsule, int fd, int format);

/* [(frames, allocated bytes, blocks, live bytes, blocks)] of a copy; frames are
 * (file, function, line), innermost first. */
PyObject *hak_py_profile_list(PyObject *capsule);

/* ---- hak_py_options.def ---------------------------------------------------- */

enum hak_py_option {
#define HAK_OPTION(type, name, ...) HAK_PY_OPT_##name,
#include "../hak_py_options.def"
#undef HAK_OPTION
    HAK_PY_OPTIONS
};
size_t hak_py_option(enum hak_py_option option);

/* The mask that HAKMEM_PYTHON asks for. */
unsigned hak_py_mask_asked(void);

/* Every variable that has an effect, as tuples (name, values, default, help).
 */
PyObject *hak_py_option_list(void);

/* ---- hak_py_stats.c -------------------------------------------------------- */

PyObject *hak_py_stats(bool classes);
uint64_t hak_py_blocks(void);

#endif /* HAK_PY_H */
