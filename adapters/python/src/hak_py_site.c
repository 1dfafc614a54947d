/*
 * hak_py_site.c - finds where in a domain our functions can be installed.
 *
 * It depends on what is there already:
 *   - a hook (tracemalloc, memray, ddtrace, as in the documentation of
 *     PyMem_SetAllocator) hands requests on to the allocator that it found, and
 *     restores that when it stops. So we go beneath it: we replace what it
 *     saved. Its context tells where that is, which is tested before we rely on
 *     it.
 *   - a hook that saves it elsewhere: we go on top of it. When it stops we are
 *     removed; raw takes our blocks (hak_py_hook.c).
 *   - the debug hooks (PYTHONMALLOC=debug, -X dev) write around every block and
 *     end the program when they find one they don't know: nothing is installed.
 * Everybody else's allocator becomes the saved one.
 */
#include <dlfcn.h>
#include <link.h>
#include <string.h>

#include "hak_py.h"

static const char *const names[HAK_PY_DOMAINS] = {"raw", "mem", "obj"};

/* ---- what an address belongs to
 * ---------------------------------------------- */

/* Looks for the loaded object and the segment that an address is in. */
struct place {
    uintptr_t at;
    size_t bytes;
    ElfW(Word) flags; /* PF_X, PF_W: of the segment */
    bool constant;    /* in variables that were made read-only once relocated */
    uintptr_t object; /* where the object is loaded */
    bool found;
};

/* Adds what one segment, which begins at `start`, says about the place. */
static void look_at_segment(struct place *place, const ElfW(Phdr) * segment,
                            uintptr_t start)
{
    uintptr_t at = place->at, end = start + segment->p_memsz;

    if (segment->p_type == PT_LOAD && at >= start && at < end &&
        place->bytes <= end - at) {
        place->flags = segment->p_flags;
        place->found = true;
    }
    if (segment->p_type == PT_GNU_RELRO && at < end &&
        at + place->bytes > start) {
        place->constant = true;
    }
}

static int look_at_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct place *place = arg;

    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

        look_at_segment(place, segment, info->dlpi_addr + segment->p_vaddr);
    }
    place->object = (uintptr_t)info->dlpi_phdr;
    return place->found;
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

/* Whether ctx points to variables of the object that contains the function. */
static bool is_own_data(const PyMemAllocatorEx *now, size_t bytes)
{
    struct place data = place_of((uintptr_t)now->ctx, bytes);
    struct place code = place_of((uintptr_t)now->malloc, 1);

    return data.found && !data.constant && code.found &&
           (data.flags & PF_W) != 0 && (code.flags & PF_X) != 0 &&
           data.object == code.object;
}

/* Whether the functions are CPython's own. */
static bool is_of_python(const PyMemAllocatorEx *now)
{
    struct place code = place_of((uintptr_t)now->malloc, 1);
    struct place python = place_of((uintptr_t)PyMem_RawMalloc, 1);

    return code.found && code.object == python.object;
}

bool hak_py_is_libc(const PyMemAllocatorEx *now)
{
    /* From 3.15 on it may be mimalloc's. */
    return PY_VERSION_HEX < 0x030f0000 && now->ctx == NULL && is_of_python(now);
}

/* ---- the debug hooks --------------------------------------------------------- */

/* Their context begins with a letter that names the domain. */
static bool is_debug(unsigned which, const PyMemAllocatorEx *now)
{
    return is_of_python(now) &&
           is_own_data(now, sizeof(void *) + sizeof(*now)) &&
           *(const char *)now->ctx == names[which][0];
}

/* ---- tracemalloc ------------------------------------------------------------- */

/*
 * Handles an exception that says that _tracemalloc does not exist or (3.9 and
 * 3.10, in a program's second interpreter) no longer does. Others stay set: -1.
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

/* ---- what a hook has saved
 * --------------------------------------------------- */

/* Hooks on hooks, at most. */
#define DEEPEST 8

/* The size of the request that we follow to see where it arrives. */
#define PROBE_SIZE 1

/*
 * Replace a malloc beneath a hook, to see whether it is called. Threads that
 * use raw meanwhile may call it too, even after they read its address: so each
 * place in each domain has a probe of its own, which calls the same malloc for
 * good.
 */
static struct probe {
    void *(*malloc)(void *ctx, size_t size);
    void *ctx;
    atomic_bool called;
} probes[HAK_PY_DOMAINS][DEEPEST];

static void *probed(struct probe *probe, void *ctx, size_t size)
{
    /* If it is called in another way this is not a PyMemAllocatorEx. A hook may
     * make the block larger. */
    if (ctx == probe->ctx && size >= PROBE_SIZE) {
        atomic_store(&probe->called, true);
    }
    return probe->malloc(ctx, size);
}

#define PROBE(which, deep)                                                     \
    static void *probe_##which##_##deep(void *ctx, size_t size)                \
    {                                                                          \
        return probed(&probes[which][deep], ctx, size);                        \
    }
#define PROBES(of, which)                                                      \
    of(which, 0) of(which, 1) of(which, 2) of(which, 3) of(which, 4)           \
        of(which, 5) of(which, 6) of(which, 7)
#define PROBE_NAME(which, deep) probe_##which##_##deep,

PROBES(PROBE, 0)
PROBES(PROBE, 1)
PROBES(PROBE, 2)

static void *(*const probe_mallocs[HAK_PY_DOMAINS][DEEPEST])(void *, size_t) = {
    {PROBES(PROBE_NAME, 0)}, {PROBES(PROBE_NAME, 1)}, {PROBES(PROBE_NAME, 2)}};

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
 * What a hook, which is `now` and the deep-th one, hands its requests to; NULL:
 * it is not where we look for it.
 */
static PyMemAllocatorEx *beneath(unsigned which, unsigned deep,
                                 const PyMemAllocatorEx *now)
{
    PyMemAllocatorEx *below = now->ctx;
    struct probe *probe = &probes[which][deep];
    void *p;

    if (!is_own_data(now, sizeof(*below)) || (uintptr_t)below % 8 != 0 ||
        !is_code((uintptr_t)below->malloc) ||
        !is_code((uintptr_t)below->calloc) ||
        !is_code((uintptr_t)below->realloc) ||
        !is_code((uintptr_t)below->free)) {
        return NULL;
    }
    probe->malloc = below->malloc;
    probe->ctx = below->ctx;
    atomic_store(&probe->called, false);
    below->malloc = probe_mallocs[which][deep];
    p = domain_malloc(which, PROBE_SIZE);
    below->malloc = probe->malloc;
    domain_free(which, p);
    return atomic_load(&probe->called) ? below : NULL;
}

/* ---- the site ------------------------------------------------------------------ */

static bool is_ours(unsigned which, const PyMemAllocatorEx *now)
{
    return now->malloc == hak_py_functions[which].malloc || hak_py_is_home(now);
}

/*
 * Whether what a hook on mem or obj saved is also used for raw. A hook that
 * saved one allocator for all domains (PYTHONMALLOC=malloc) calls it without
 * the GIL, so our functions for mem and obj must not be put there.
 */
static bool is_of_raw(unsigned which, const PyMemAllocatorEx *below)
{
    return which != HAK_PY_RAW && is_ours(HAK_PY_RAW, below);
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
        below = is_ours(which, now) ? NULL : beneath(which, deep, now);
        if (below == NULL || is_of_raw(which, below)) {
            break;
        }
        now = site->below = below;
    }
    /* On top of raw we would be removed when tracemalloc stops, and nothing
     * would be left to take our blocks. */
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

/* Replaces the free of a saved allocator, likewise. */
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
    bool ours = p == NULL || haki_embed_owns(p);

    domain_free(which, p);
    return ours;
}

/*
 * Whether a domain's requests go to another hakmem_py, by its file's name. That
 * one serves them itself and hands others' blocks on, perhaps to us: treating
 * ours as removed and installing us above it would make a cycle.
 */
static bool is_other_core(unsigned which)
{
    struct hak_py_site site;
    Dl_info info, own;
    const char *name;

    hak_py_find_site(which, false, &site);
    if (dladdr((void *)(uintptr_t)hak_py_current(&site)->free, &info) == 0 ||
        dladdr((void *)(uintptr_t)passed_free, &own) == 0 ||
        info.dli_fbase == own.dli_fbase) {
        return false;
    }
    name = strrchr(info.dli_fname, '/');
    return name != NULL && strncmp(name, "/_hakmem.", 9) == 0;
}

bool hak_py_is_there(unsigned which, PyMemAllocatorEx *saved)
{
    void *p = domain_malloc(which, 1);

    if (p == NULL || haki_embed_owns(p)) {
        domain_free(which, p);
        return true;
    }
    passed.free = saved->free;
    atomic_store(&passed.called, false);
    saved->free = passed_free;
    domain_free(which, p);
    saved->free = passed.free;
    return atomic_load(&passed.called) || is_other_core(which);
}
