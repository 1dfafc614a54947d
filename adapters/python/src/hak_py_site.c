/*
 * hak_py_site.c - where in a domain our functions may stand.
 *
 * Who is there already matters:
 *   - a hook (tracemalloc, memray, ddtrace, as the documentation of
 *     PyMem_SetAllocator shows it) hands requests on to the allocator that it
 *     found, and puts that back when it stops. So we go beneath it: what it
 *     saved is replaced. Where that stands is known from its context, and
 *     proved before it is relied on.
 *   - a hook that keeps it elsewhere: we go on top of it. When it stops we are
 *     gone from there; raw takes our blocks (hak_py_hook.c).
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

bool hak_py_is_libc(const PyMemAllocatorEx *now)
{
    struct place code = place_of((uintptr_t)now->malloc, 1);
    struct place python = place_of((uintptr_t)PyMem_RawMalloc, 1);

    /* From 3.15 on it may be mimalloc's. */
    return PY_VERSION_HEX < 0x030f0000 && now->ctx == NULL && code.found &&
           code.object == python.object;
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

/* ---- what a hook has saved --------------------------------------------------- */

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
 * What a hook, which is `now`, hands its requests to; NULL: it does not stand
 * where we look for it.
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

/* ---- the site ------------------------------------------------------------------ */

/* Hooks on hooks, at most. */
#define DEEPEST 8

static bool is_ours(unsigned which, const PyMemAllocatorEx *now)
{
    return now->malloc == hak_py_functions[which].malloc || hak_py_is_home(now);
}

enum hak_py_found hak_py_find_site(unsigned which, bool tracing,
                                   struct hak_py_site *site)
{
    const PyMemAllocatorEx *now = &site->now;
    PyMemAllocatorEx *below;

    PyMem_GetAllocator((PyMemAllocatorDomain)which, &site->now);
    site->below = NULL;
    for (unsigned deep = 0; deep < DEEPEST; deep++) {
        if (is_debug(which, now)) {
            return HAK_PY_FOUND_DEBUG;
        }
        below = is_ours(which, now) ? NULL : beneath(which, now);
        if (below == NULL) {
            break;
        }
        now = site->below = below;
    }
    /* On top of raw we would be gone when tracemalloc stops, and none is left
     * to take our blocks. */
    return tracing && which == HAK_PY_RAW && site->below == NULL &&
                   !is_ours(which, now)
               ? HAK_PY_FOUND_NOTHING
               : HAK_PY_FOUND;
}

void hak_py_put(unsigned which, const struct hak_py_site *site,
                const PyMemAllocatorEx *functions)
{
    PyMemAllocatorEx copy = *functions;

    if (site->below != NULL) {
        *site->below = copy;
    } else {
        PyMem_SetAllocator((PyMemAllocatorDomain)which, &copy);
    }
}

/* ---- are we still there ------------------------------------------------------ */

/* Stands in for the free of a saved allocator, likewise. */
static struct {
    void (*free)(void *ctx, void *p);
    atomic_bool called;
} passed;

static void passed_free(void *ctx, void *p)
{
    atomic_store(&passed.called, true);
    passed.free(ctx, p);
}

bool hak_py_answers(unsigned which)
{
    void *p = domain_malloc(which, 1);
    bool ours = p == NULL || hak_range_owns(p);

    domain_free(which, p);
    return ours;
}

bool hak_py_is_there(unsigned which, PyMemAllocatorEx *saved)
{
    void *p = domain_malloc(which, 1);

    if (p == NULL || hak_range_owns(p)) {
        domain_free(which, p);
        return true;
    }
    passed.free = saved->free;
    atomic_store(&passed.called, false);
    saved->free = passed_free;
    domain_free(which, p);
    saved->free = passed.free;
    return atomic_load(&passed.called);
}
