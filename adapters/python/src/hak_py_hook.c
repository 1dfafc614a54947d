/*
 * hak_py_hook.c - installs our functions in CPython's domains.
 *
 * raw is special. When a hook that was installed before us restores what it
 * found, the domain is pymalloc's again, and pymalloc gets our blocks. It
 * passes blocks that it does not know to raw's free and realloc. So these two
 * are always ours, whichever domains are on: the "home", which recognises our
 * blocks by their address and hands everything else on. Its malloc is the one
 * that was there, and costs nothing.
 */
#include <string.h>

#include "hak_py.h"

/* ---- home ---------------------------------------------------------------------- */

/* What raw had before; free is NULL: not installed. */
static PyMemAllocatorEx home;

static void *home_realloc(void *ctx, void *p, size_t size)
{
    size_t old;
    void *moved;

    (void)ctx;
    if (HAK_LIKELY(!haki_embed_owns(p))) {
        return home.realloc(home.ctx, p, size);
    }
    old = haki_lane_usable(p, "realloc");
    if (haki_fits_as_is(old, size)) {
        return p;
    }
    moved = home.malloc(home.ctx, size);
    if (HAK_UNLIKELY(moved == NULL)) {
        return size <= old ? p : NULL; /* a shrink never fails */
    }
    memcpy(moved, p, haki_min(old, size));
    hak_py_free(&hak_py.domains[HAK_PY_RAW], p);
    return moved;
}

static void home_free(void *ctx, void *p)
{
    (void)ctx;
    if (HAK_LIKELY(!haki_embed_owns(p))) {
        home.free(home.ctx, p);
    } else {
        hak_py_free(&hak_py.domains[HAK_PY_RAW], p);
    }
}

#if PY_VERSION_HEX >= 0x030c0000

/* This is how we learn of other interpreters: see hak_py_suspect. An audit hook
 * would cost a call in every id(), and 3.13 raises the event only for some. */
static void *home_calloc(void *ctx, size_t count, size_t size)
{
    size_t bytes;

    (void)ctx;
    if (!__builtin_mul_overflow(count, size, &bytes)) {
        hak_py_suspect(bytes);
    }
    return home.calloc(home.ctx, count, size);
}

/* Checks whether there already is another interpreter. */
static void count_interpreters(void)
{
    PyInterpreterState *first = PyInterpreterState_Head();

    /* For 3.15 it is not known where interpreter states come from. */
    if (PY_VERSION_HEX >= 0x030f0000 || first == NULL ||
        PyInterpreterState_Next(first) != NULL) {
        hak_py_share();
    }
}

#else

static void count_interpreters(void)
{
}

#endif

bool hak_py_is_home(const PyMemAllocatorEx *now)
{
    return now->free == home_free;
}

static bool home_is_there(void)
{
    struct hak_py_domain *raw = &hak_py.domains[HAK_PY_RAW];

    return home.free != NULL &&
           (raw->installed || hak_py_is_there(HAK_PY_RAW, &home));
}

/* Installed before the first request of any domain. */
static void install_home(const struct hak_py_site *site)
{
    const PyMemAllocatorEx *now = hak_py_current(site);
    PyMemAllocatorEx functions = *now;

    if (hak_py_is_home(now) ||
        now->malloc == hak_py_functions[HAK_PY_RAW].malloc) {
        return;
    }
    home = *now;
#if PY_VERSION_HEX >= 0x030c0000
    functions.calloc = home_calloc;
#endif
    functions.realloc = home_realloc;
    functions.free = home_free;
    hak_py_put(HAK_PY_RAW, site, &functions);
    if (!hak_py.shared) {
        count_interpreters();
    }
}

/* ---- our own functions ------------------------------------------------------- */

/* Where they replace home they do its job. */
static void install(unsigned which, const struct hak_py_site *site)
{
    const PyMemAllocatorEx *now = hak_py_current(site);
    struct hak_py_domain *d = &hak_py.domains[which];
    PyMemAllocatorEx ours = hak_py_functions[which];

    d->installed = true;
    if (now->malloc == ours.malloc) {
        return;
    }
    d->saved = which == HAK_PY_RAW && hak_py_is_home(now) ? home : *now;
    ours.ctx = d->saved.ctx; /* which is read separately from the functions */
    hak_py_put(which, site, &ours);
}

bool hak_py_forget(void)
{
    bool any = false;

    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        struct hak_py_domain *d = &hak_py.domains[i];

        if (d->installed && !hak_py_is_there(i, &d->saved)) {
            d->installed = d->on = false;
            any = true;
        }
    }
    return any;
}

/* Finds the sites of the domains in a mask; returns whether all can be used. */
static enum hak_py_found find_sites(unsigned mask, bool tracing,
                                    struct hak_py_site *sites)
{
    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        enum hak_py_found found = (mask >> i & 1) != 0
                                      ? hak_py_find_site(i, tracing, &sites[i])
                                      : HAK_PY_FOUND;

        if (found != HAK_PY_FOUND) {
            return found;
        }
    }
    for (unsigned i = HAK_PY_MEM; (mask & 1) != 0 && i < HAK_PY_DOMAINS; i++) {
        if ((mask >> i & 1) != 0 && sites[i].below == sites[HAK_PY_RAW].below) {
            sites[i].below = NULL; /* raw's: on top of the hook instead */
        }
    }
    return HAK_PY_FOUND;
}

/* The domains in a mask that don't have our functions. */
static unsigned missing(unsigned mask)
{
    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        mask &= ~((unsigned)hak_py.domains[i].installed << i);
    }
    return mask;
}

enum hak_py_found hak_py_install(unsigned mask, bool tracing)
{
    struct hak_py_site sites[HAK_PY_DOMAINS];
    bool at_home = mask == 0 || home_is_there();
    enum hak_py_found found;

    mask = missing(mask);
    found =
        find_sites(at_home ? mask : mask | 1u << HAK_PY_RAW, tracing, sites);
    if (found == HAK_PY_FOUND_DEBUG) {
        hak_py.reason = "CPython's debug hooks are active "
                        "(PYTHONMALLOC=debug, -X dev)";
    }
    if (found != HAK_PY_FOUND) {
        return found;
    }
    if (!at_home) {
        install_home(&sites[HAK_PY_RAW]);
    }
    if (mask != 0 && !hak_py_start()) {
        return HAK_PY_FOUND_NO_MEMORY;
    }
    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        if ((mask >> i & 1) != 0) {
            install(i, &sites[i]);
        }
    }
    return HAK_PY_FOUND;
}

bool hak_py_enable(unsigned mask, bool tracing)
{
    enum hak_py_found found;

    hak_py_forget();
    /* A limit for all memory applies to all domains. */
    found = hak_py_install(hak_py.whole ? HAK_PY_ALL : mask, tracing);
    if (found == HAK_PY_FOUND) {
        hak_py_switch(mask);
        hak_py.reason = NULL;
    }
    return found != HAK_PY_FOUND_NOTHING;
}

unsigned hak_py_enabled(void)
{
    unsigned mask = 0;

    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        if (hak_py.domains[i].on && hak_py_answers(i)) {
            mask |= 1u << i;
        }
    }
    return mask;
}

const char *hak_py_why(void)
{
    if (hak_py_enabled() != 0) {
        return NULL;
    }
    return hak_py.reason != NULL
               ? hak_py.reason
               : "a hook that began before hakmem_py has put back the "
                 "allocator that it found; hakmem_py.enable() installs it anew";
}
