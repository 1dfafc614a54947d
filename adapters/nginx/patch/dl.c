/*
 * dl.c - dlopen, dlmopen, dlsym and dlvsym, as patched objects call them.
 *
 * dlopen: what was loaded is patched before dlopen returns, but after its
 * constructors have run. For that the real function is called from here. It
 * uses its caller's RUNPATH and RPATH, so this is done only where it makes no
 * difference who calls. Otherwise the real function is jumped to (stub.h), and
 * the patching is done in dlsym, without which nobody gets at the new object's
 * functions.
 *
 * dlsym: code that looks up free by name, as LuaJIT's ffi.C does, gets ours,
 * and the same goes for the other functions that take a block. A name that some
 * object in front of libc defines (perhaps another allocator), or that a
 * handle's object defines itself, is left to the real function.
 *
 * Errors are left to the real functions, so dlerror says what it always would.
 */
#include "patch.h"

#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <link.h>
#include <string.h>

#include "elf.h"
#include "names.h"
#include "embed.h"

#if HAK_HAS_STUBS

HAK_STUB_ONLY hak_ngx_function *hak_ngx_on_dlopen(uintptr_t *args);
HAK_STUB_ONLY hak_ngx_function *hak_ngx_on_dlmopen(uintptr_t *args);
HAK_STUB_ONLY hak_ngx_function *hak_ngx_on_dlsym(uintptr_t *args);
HAK_STUB_ONLY hak_ngx_function *hak_ngx_on_dlvsym(uintptr_t *args);

/* ---- dlopen ------------------------------------------------------------------ */

struct search {
    uintptr_t caller;
    bool found, plain;
    unsigned seen;
};

/* The program's own RPATH is everybody's. */
static int look_at(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct search *search = arg;
    bool is_program = search->seen++ == 0;
    struct hak_ngx_elf elf;
    const char *why;

    (void)size;
    if (!hak_ngx_elf_open(&elf, info, &why)) {
        return 0;
    }
    if (hak_ngx_elf_has(&elf, search->caller, false)) {
        search->found = true;
        search->plain = search->plain && !elf.has_runpath;
    }
    if (hak_ngx_elf_has(&elf, (uintptr_t)look_at, false)) {
        search->plain = search->plain && !elf.has_runpath;
    }
    search->plain = search->plain && (is_program || !elf.has_rpath);
    return 0;
}

/* Whether dlopen would find the same file for us as for the caller. */
static bool is_same_to_us(const char *file, uintptr_t caller)
{
    struct search search = {.caller = caller, .plain = true};

    if (file == NULL) {
        return true;
    }
    if (strchr(file, '$') != NULL) { /* $ORIGIN, the caller's directory */
        return false;
    }
    if (strchr(file, '/') != NULL) {
        return true;
    }
    dl_iterate_phdr(look_at, &search);
    return search.found && search.plain;
}

hak_ngx_function *hak_ngx_on_dlopen(uintptr_t *args)
{
    void *handle;

    if (!is_same_to_us((const char *)args[0], args[3])) {
        return (hak_ngx_function *)dlopen;
    }
    handle = dlopen((const char *)args[0], (int)args[1]);
    if (handle != NULL) {
        hak_ngx_catch_up();
    }
    args[0] = (uintptr_t)handle;
    return NULL;
}

/* Other namespaces have a libc of their own, and are left alone. */
hak_ngx_function *hak_ngx_on_dlmopen(uintptr_t *args)
{
    void *handle;

    if (args[0] != LM_ID_BASE ||
        !is_same_to_us((const char *)args[1], args[3])) {
        return (hak_ngx_function *)dlmopen;
    }
    handle = dlmopen(LM_ID_BASE, (const char *)args[1], (int)args[2]);
    if (handle != NULL) {
        hak_ngx_catch_up();
    }
    args[0] = (uintptr_t)handle;
    return NULL;
}

/* ---- dlsym ------------------------------------------------------------------- */

static bool is_in_libc(const void *p)
{
    Dl_info there, libc;

    return dladdr(p, &there) != 0 &&
           dladdr((const void *)(uintptr_t)gnu_get_libc_version, &libc) != 0 &&
           there.dli_fbase == libc.dli_fbase;
}

static void *find(void *handle, const char *name, const char *version)
{
    return version != NULL ? dlvsym(handle, name, version)
                           : dlsym(handle, name);
}

/*
 * Our function in place of what a lookup would find, or NULL: leave it to the
 * real dlsym. RTLD_NEXT depends on its caller; but if libc is the first object
 * that has the name it is also the next.
 */
static hak_ngx_function *ours_for(void *handle, const char *name,
                                  const char *version)
{
    const hak_ngx_name *known = name != NULL ? hak_ngx_name_find(name) : NULL;
    void *first;

    if (known == NULL || known->any == NULL) {
        return NULL;
    }
    first = find(RTLD_DEFAULT, name, version);
    if (first == NULL || (handle == RTLD_NEXT && !is_in_libc(first)) ||
        (handle != RTLD_NEXT && handle != RTLD_DEFAULT &&
         find(handle, name, version) != first)) {
        return NULL;
    }
    return known->any;
}

hak_ngx_function *hak_ngx_on_dlsym(uintptr_t *args)
{
    hak_ngx_function *ours;

    hak_ngx_catch_up();
    ours = ours_for((void *)args[0], (const char *)args[1], NULL);
    if (ours == NULL) {
        return (hak_ngx_function *)dlsym;
    }
    args[0] = (uintptr_t)ours;
    return NULL;
}

hak_ngx_function *hak_ngx_on_dlvsym(uintptr_t *args)
{
    hak_ngx_function *ours = NULL;

    hak_ngx_catch_up();
    if (args[2] != 0) {
        ours = ours_for((void *)args[0], (const char *)args[1],
                        (const char *)args[2]);
    }
    if (ours == NULL) {
        return (hak_ngx_function *)dlvsym;
    }
    args[0] = (uintptr_t)ours;
    return NULL;
}

/* ---- the stubs ----------------------------------------------------------------- */

#define BIND(name) ".globl " name "\n.hidden " name

HAK_STUB(BIND("hak_ngx_dlopen"), "hak_ngx_dlopen", "hak_ngx_on_dlopen");
HAK_STUB(BIND("hak_ngx_dlmopen"), "hak_ngx_dlmopen", "hak_ngx_on_dlmopen");
HAK_STUB(BIND("hak_ngx_dlsym"), "hak_ngx_dlsym", "hak_ngx_on_dlsym");
HAK_STUB(BIND("hak_ngx_dlvsym"), "hak_ngx_dlvsym", "hak_ngx_on_dlvsym");

#else /* nothing is patched on other processors (elf.c) */

void *hak_ngx_dlopen(const char *file, int mode)
{
    return dlopen(file, mode);
}

void *hak_ngx_dlmopen(Lmid_t space, const char *file, int mode)
{
    return dlmopen(space, file, mode);
}

void *hak_ngx_dlsym(void *handle, const char *name)
{
    return dlsym(handle, name);
}

void *hak_ngx_dlvsym(void *handle, const char *name, const char *version)
{
    return dlvsym(handle, name, version);
}

#endif
