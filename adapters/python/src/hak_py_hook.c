/*
 * hak_py_hook.c - our functions are installed in CPython's domains.
 *
 * Who is there already matters:
 *   - tracemalloc writes back, when it stops, what it saved when it began. So
 *     while it traces we go beneath it: what it saved is replaced. Where that
 *     stands is known from its context, and proved before it is relied on.
 *   - the debug hooks (PYTHONMALLOC=debug, -X dev) write around every block
 *     and end the program over one they don't know: nothing is installed.
 * Everybody else's allocator becomes the saved one.
 */
#include <link.h>
#include <string.h>

#include "hak_py.h"

static const char *const names[HAK_PY_DOMAINS] = {"raw", "mem", "obj"};

/* ---- whose memory is it ------------------------------------------------------ */

/* Looks for the loaded object and the segment that an address is in. */
struct place {
    uintptr_t at;
    size_t bytes;
    ElfW(Word) flags; /* PF_X, PF_W: of the segment */
    uintptr_t object; /* where the object is loaded */
    bool found;
};

static int look_at_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct place *place = arg;

    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + segment->p_vaddr;

        if (segment->p_type == PT_LOAD && place->at >= start &&
            place->at - start + place->bytes <= segment->p_memsz) {
            place->flags = segment->p_flags;
            place->object = (uintptr_t)info->dlpi_phdr;
            place->found = true;
            return 1;
        }
    }
    return 0;
}

static struct place place_of(uintptr_t at, size_t bytes)
{
    struct place place = {.at = at, .bytes = bytes};

    dl_iterate_phdr(look_at_object, &place);
    return place;
}

static bool is_code(uintptr_t at)
{
    struct place place = place_of(at, 1);

    return place.found && (place.flags & PF_X) != 0;
}

/* Whether ctx points to variables of the object that has the function. */
static bool is_own_data(const PyMemAllocatorEx *now, size_t bytes)
{
    struct place data = place_of((uintptr_t)now->ctx, bytes);
    struct place code = place_of((uintptr_t)now->malloc, 1);

    return data.found && code.found && (data.flags & PF_W) != 0 &&
           (code.flags & PF_X) != 0 && data.object == code.object;
}

/* ---- the debug hooks --------------------------------------------------------- */

/* Their context begins with a letter that names the domain. */
static bool is_debug(unsigned which, const PyMemAllocatorEx *now)
{
    return is_own_data(now, sizeof(void *) + sizeof(*now)) &&
           *(const char *)now->ctx == names[which][0];
}

/* ---- tracemalloc ------------------------------------------------------------- */

/*
 * What an exception of _tracemalloc's says: that it is not there, or (3.9 and
 * 3.10, in a program's second interpreter) not any more. Other ones stay: -1.
 */
static int no_tracemalloc(void)
{
    if (!PyErr_ExceptionMatches(PyExc_ImportError) &&
        !PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

int hak_py_is_tracing(void)
{
    PyObject *module = PyImport_ImportModule("_tracemalloc");
    PyObject *answer;
    int yes;

    if (module == NULL) {
        return no_tracemalloc();
    }
    answer = PyObject_CallMethod(module, "is_tracing", NULL);
    Py_DECREF(module);
    if (answer == NULL) {
        return no_tracemalloc();
    }
    yes = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return yes;
}

/* Stands in for the malloc beneath, to see whether it is called. */
static struct {
    void *(*malloc)(void *ctx, size_t size);
    atomic_bool called;
} probe;

static void *probe_malloc(void *ctx, size_t size)
{
    atomic_store(&probe.called, true);
    return probe.malloc(ctx, size);
}

static void *domain_malloc(unsigned which, size_t size)
{
    switch (which) {
    case HAK_PY_RAW: return PyMem_RawMalloc(size);
    case HAK_PY_MEM: return PyMem_Malloc(size);
    default: return PyObject_Malloc(size);
    }
}

static void domain_free(unsigned which, void *p)
{
    switch (which) {
    case HAK_PY_RAW: PyMem_RawFree(p); break;
    case HAK_PY_MEM: PyMem_Free(p); break;
    default: PyObject_Free(p); break;
    }
}

/*
 * What tracemalloc, which is `now`, hands its requests to; NULL: it does not
 * stand where we look for it.
 */
static PyMemAllocatorEx *beneath(unsigned which, const PyMemAllocatorEx *now)
{
    PyMemAllocatorEx *below = now->ctx;
    void *p;

    if (!is_own_data(now, sizeof(*below)) || (uintptr_t)below % 8 != 0 ||
        !is_code((uintptr_t)below->malloc) ||
        !is_code((uintptr_t)below->calloc) ||
        !is_code((uintptr_t)below->realloc) ||
        !is_code((uintptr_t)below->free)) {
        return NULL;
    }
    probe.malloc = below->malloc;
    atomic_store(&probe.called, false);
    below->malloc = probe_malloc;
    p = domain_malloc(which, 1);
    below->malloc = probe.malloc;
    domain_free(which, p);
    return atomic_load(&probe.called) ? below : NULL;
}

/* ---- installing --------------------------------------------------------------- */

/* Where a domain's functions stand: in `now`, or beneath tracemalloc. */
struct site {
    PyMemAllocatorEx now;
    PyMemAllocatorEx *below; /* NULL: not beneath anything */
};

static const PyMemAllocatorEx *current(const struct site *site)
{
    return site->below != NULL ? site->below : &site->now;
}

enum found {
    FOUND,
    FOUND_DEBUG,  /* the debug hooks are there */
    FOUND_NOTHING /* beneath tracemalloc */
};

static enum found find_site(unsigned which, bool tracing, struct site *site)
{
    PyMem_GetAllocator((PyMemAllocatorDomain)which, &site->now);
    site->below = NULL;
    if (is_debug(which, &site->now)) {
        return FOUND_DEBUG;
    }
    if (tracing) {
        site->below = beneath(which, &site->now);
        if (site->below == NULL) {
            return FOUND_NOTHING;
        }
    }
    return is_debug(which, current(site)) ? FOUND_DEBUG : FOUND;
}

/* ---- a second interpreter ---------------------------------------------------- */

#if PY_VERSION_HEX >= 0x030f0000

/* Where interpreter states come from there has not been looked at. */
static enum found watch(bool tracing)
{
    (void)tracing;
    hak_py_share();
    return FOUND;
}

#elif PY_VERSION_HEX >= 0x030c0000

static void *(*watched_calloc)(void *ctx, size_t count, size_t size);

/* raw's calloc, whosever raw is. */
static void *watch_calloc(void *ctx, size_t count, size_t size)
{
    size_t bytes;

    if (!__builtin_mul_overflow(count, size, &bytes)) {
        hak_py_suspect(bytes);
    }
    return watched_calloc(ctx, count, size);
}

/* Whether raw is watched already: it is ours, or its calloc is. */
static bool is_watched(const PyMemAllocatorEx *raw)
{
    return raw->calloc == watch_calloc ||
           raw->malloc == hak_py_functions[HAK_PY_RAW].malloc ||
           (watched_calloc != NULL && raw->calloc != watched_calloc);
}

/*
 * Before the first request: from now on we learn of other interpreters. The
 * event of audit hooks would cost every id() a call, and 3.13 tells it only of
 * some.
 */
static enum found watch(bool tracing)
{
    struct site site;
    PyInterpreterState *first;
    enum found found;

    if (hak_py.shared) {
        return FOUND;
    }
    found = find_site(HAK_PY_RAW, tracing, &site);
    if (found != FOUND || is_watched(current(&site))) {
        return found;
    }
    watched_calloc = current(&site)->calloc;
    if (site.below != NULL) {
        site.below->calloc = watch_calloc;
    } else {
        site.now.calloc = watch_calloc;
        PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &site.now);
    }
    first = PyInterpreterState_Head();
    if (first == NULL || PyInterpreterState_Next(first) != NULL) {
        hak_py_share();
    }
    return FOUND;
}

#else

static enum found watch(bool tracing)
{
    (void)tracing;
    return FOUND;
}

#endif

/* ---- our own functions ------------------------------------------------------- */

static void install(unsigned which, struct site *site)
{
    struct hak_py_domain *d = &hak_py.domains[which];
    PyMemAllocatorEx ours = hak_py_functions[which];

    if (current(site)->malloc == ours.malloc) {
        d->installed = true;
        return;
    }
    d->saved = *current(site);
    ours.ctx = d->saved.ctx; /* which is read apart from the functions */
    d->installed = true;
    if (site->below != NULL) {
        *site->below = ours;
    } else {
        PyMem_SetAllocator((PyMemAllocatorDomain)which, &ours);
    }
}

/* Whether the saved allocator stands where ours was put. */
static bool is_reset(unsigned which)
{
    const PyMemAllocatorEx *saved = &hak_py.domains[which].saved;
    PyMemAllocatorEx now;

    PyMem_GetAllocator((PyMemAllocatorDomain)which, &now);
    return now.malloc == saved->malloc && now.ctx == saved->ctx;
}

bool hak_py_forget(void)
{
    bool any = false;

    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        struct hak_py_domain *d = &hak_py.domains[i];

        if (d->installed && is_reset(i)) {
            d->installed = d->on = false;
            any = true;
        }
    }
    return any;
}

/* The sites of a mask's domains; whether all may be installed. */
static enum found find_sites(unsigned mask, bool tracing, struct site *sites)
{
    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        enum found found = (mask >> i & 1) != 0 && !hak_py.domains[i].installed
                               ? find_site(i, tracing, &sites[i])
                               : FOUND;

        if (found != FOUND) {
            return found;
        }
    }
    return FOUND;
}

bool hak_py_enable(unsigned mask, bool tracing)
{
    struct site sites[HAK_PY_DOMAINS];
    enum found found;

    hak_py_forget();
    found = find_sites(mask, tracing, sites);
    if (found == FOUND && mask != 0) {
        found = watch(tracing);
    }
    if (found == FOUND_NOTHING) {
        return false;
    }
    if (found == FOUND_DEBUG) {
        hak_py.reason = "CPython's debug hooks are active "
                        "(PYTHONMALLOC=debug, -X dev)";
        return true;
    }
    if (mask != 0 && !hak_py_start()) {
        return true;
    }
    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        if ((mask >> i & 1) != 0 && !hak_py.domains[i].installed) {
            install(i, &sites[i]);
        }
    }
    hak_py_switch(mask);
    hak_py.reason = NULL;
    return true;
}
