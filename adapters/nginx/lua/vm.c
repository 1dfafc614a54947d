/*
 * vm.c - a heap of ours for each Lua VM: vm.h.
 *
 * Tested by tests/nginx/test_lua.py.
 */
#include "vm.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hakmem.h>

#include "../patch/slots.h"

/* Of lua.h, the same in LuaJIT and Lua 5.1 to 5.4. */
typedef struct lua_State lua_State;
typedef void *vm_alloc_fn(void *ud, void *ptr, size_t osize, size_t nsize);

typedef void vm_hook_fn(lua_State *L, void *event);

enum { GC_RESTART = 1, GC_COLLECT = 2, GC_SETSTEPMUL = 7, MASK_COUNT = 8 };

/* The collector's speed: fast, and all of a cycle at once. */
enum { QUICK = 1000, AT_ONCE = 0 };

#define SHARE 16 /* of the limit */

struct library {
    lua_State *(*make)(void); /* luaL_newstate */
    lua_State *(*newstate)(vm_alloc_fn *f, void *ud);
    int (*gc)(lua_State *L, int what, int data);
    int (*sethook)(lua_State *L, vm_hook_fn *hook, int mask, int count);
    vm_hook_fn *(*gethook)(lua_State *L);
    int (*gethookmask)(lua_State *L);
    int (*gethookcount)(lua_State *L);
    vm_alloc_fn *(*getallocf)(lua_State *L, void **ud);
    void (*pushstring)(lua_State *L, const char *text);
    int (*error)(lua_State *L);
};

/* Where each is, by its name. */
static const struct {
    const char *name;
    size_t at;
} vm_names[] = {
#define NAME(name)                                                             \
    {                                                                          \
        "lua_" #name, offsetof(struct library, name)                           \
    }
    NAME(newstate),  NAME(gc),          NAME(sethook),
    NAME(gethook),   NAME(gethookmask), NAME(gethookcount),
    NAME(getallocf), NAME(pushstring),  NAME(error)};

struct vm {
    struct vm *next;
    hak_heap *heap;
    lua_State *L; /* NULL: it is being made */
    struct library library;
    bool is_main; /* made by the main thread */
    /* The hook is set, and what was there before. */
    bool stopping;
    vm_hook_fn *hook;
    int mask, count;
    int stepmul; /* the collector's own; -1: it was not changed */
    size_t live, peak, hurried, low;
    uint64_t calls, refusals;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct vm *all;
static struct library known;
static size_t soft, limit;
static uint64_t ended_calls, ended_refusals, collections;
static bool enabled;
static void (*need)(void);

/* ---- the allocator ---------------------------------------------------------- */

/* Only sets numbers of the collector's: it is due at its next look. */
static void vm_speed(struct vm *vm, int speed)
{
    int before = vm->library.gc(vm->L, GC_SETSTEPMUL, speed);

    vm->stepmul = vm->stepmul >= 0 ? vm->stepmul : before;
    vm->library.gc(vm->L, GC_RESTART, 0);
    if (vm->is_main && need != NULL) {
        need();
    }
}

static void vm_hurry(struct vm *vm)
{
    if (vm->live >= vm->hurried) {
        vm->hurried = vm->live + limit / SHARE;
        vm_speed(vm, QUICK);
    }
}

/* At the next instruction of the script. */
static void vm_stop(lua_State *L, void *event)
{
    struct vm *vm;
    void *ud;

    (void)event;
    known.getallocf(L, &ud);
    vm = ud;
    vm->library.sethook(L, vm->hook, vm->mask, vm->count);
    vm->stopping = false;
    vm->library.gc(L, GC_COLLECT, 0);
    if (vm->live > limit - limit / SHARE) {
        vm->refusals++;
        vm->library.pushstring(L, "not enough memory");
        vm->library.error(L);
    }
}

/* That may be done at any time. */
static void vm_stop_soon(struct vm *vm)
{
    const struct library *lua = &vm->library;

    if (!vm->stopping) {
        vm->stopping = true;
        vm->hook = lua->gethook(vm->L);
        vm->mask = lua->gethookmask(vm->L);
        vm->count = lua->gethookcount(vm->L);
        lua->sethook(vm->L, vm_stop, MASK_COUNT, 1);
        vm_speed(vm, AT_ONCE);
    }
}

static bool vm_admits(struct vm *vm, size_t more)
{
    size_t live = vm->live + more;

    if (vm->L == NULL || limit == 0) { /* LuaJIT crashes if it can't be made */
        return true;
    }
    if (live > limit) {
        vm_stop_soon(vm);
    } else if (live > soft) {
        vm_hurry(vm);
    }
    if (live <= limit + limit / 2) {
        return true;
    }
    vm->refusals++;
    return false;
}

static void vm_end(struct vm *vm)
{
    struct vm **at;

    pthread_mutex_lock(&lock);
    for (at = &all; *at != vm; at = &(*at)->next) {
    }
    *at = vm->next;
    ended_calls += vm->calls;
    ended_refusals += vm->refusals;
    pthread_mutex_unlock(&lock);
    hak_heap_delete(vm->heap);
    free(vm);
}

/* A lua_Alloc. The block that has the main thread in it is freed last. */
static void *vm_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    struct vm *vm = ud;
    int error = errno;
    void *p;

    vm->calls++;
    osize = ptr != NULL ? osize : 0;
    if (nsize == 0) {
        vm->live -= osize;
        hak_heap_free(vm->heap, ptr);
        if (vm->L != NULL && (uintptr_t)vm->L - (uintptr_t)ptr < osize) {
            vm_end(vm);
        }
        errno = error;
        return NULL;
    }
    if (nsize > osize && !vm_admits(vm, nsize - osize)) {
        return NULL;
    }
    p = hak_heap_realloc(vm->heap, ptr, nsize);
    if (p != NULL) {
        vm->live += nsize - osize;
        vm->peak = vm->live > vm->peak ? vm->live : vm->peak;
    }
    errno = error;
    return p;
}

/* ---- making one --------------------------------------------------------------- */

static struct vm *vm_new(void)
{
    hak_heap_config config = {.size = sizeof(config), .name = "Lua VM"};
    struct vm *vm = calloc(1, sizeof(*vm));

    if (vm == NULL) {
        return NULL;
    }
    vm->heap = hak_heap_new(&config);
    if (vm->heap == NULL) {
        free(vm);
        return NULL;
    }
    vm->library = known;
    vm->stepmul = -1;
    vm->is_main = getpid() == gettid();
    pthread_mutex_lock(&lock);
    vm->next = all;
    all = vm;
    pthread_mutex_unlock(&lock);
    return vm;
}

/* What the slots lead to. */
static lua_State *vm_newstate(void)
{
    struct vm *vm = enabled ? vm_new() : NULL;
    lua_State *L = NULL;

    if (vm != NULL) {
        L = known.newstate(vm_alloc, vm);
        vm->L = L;
        vm->low = vm->live;
        if (L == NULL) {
            vm_end(vm);
        }
    }
    return L != NULL ? L : known.make();
}

/* ---- slots ----------------------------------------------------------------------- */

static bool vm_find_names(void *handle)
{
    for (size_t i = 0; i < sizeof(vm_names) / sizeof(*vm_names); i++) {
        void *at = dlsym(handle, vm_names[i].name);

        if (at == NULL) {
            return false;
        }
        memcpy((char *)&known + vm_names[i].at, &at, sizeof(at));
    }
    return true;
}

/* The library that has this luaL_newstate; false: it has not all that we need. */
static bool vm_find_library(hak_ngx_function *now)
{
    static void *found; /* known.make */
    void *make, *handle;
    Dl_info info;

    memcpy(&make, &now, sizeof(make));
    if (found == make) {
        return true;
    }
    /* A reload may have unloaded it; two libraries at once are one too many. */
    if (found != NULL && dladdr(found, &info) != 0) {
        return false;
    }
    found = NULL;
    if (dladdr(make, &info) == 0 ||
        (handle = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD)) == NULL) {
        return false;
    }
    if (vm_find_names(handle)) {
        *(void **)&known.make = found = make;
    }
    dlclose(handle); /* the module has it, too */
    return found != NULL;
}

struct vm_walk {
    void
        *slots[8]; /* with their objects' words: a library is looked up later */
    struct hak_ngx_elf elf[8];
    unsigned found, ours;
};

static bool vm_is_lua_module(const struct hak_ngx_elf *elf)
{
    return elf->file[0] == '\0' || strstr(elf->file, "_lua_module") != NULL;
}

static int vm_look(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct vm_walk *walk = arg;
    struct hak_ngx_reloc reloc;
    struct hak_ngx_elf elf;
    const char *why;

    (void)size;
    if (!hak_ngx_elf_open(&elf, info, &why) || !vm_is_lua_module(&elf)) {
        return 0;
    }
    for (unsigned table = 0; table < 2; table++) {
        for (size_t i = 0; i < elf.tables[table].count; i++) {
            if (hak_ngx_elf_reloc(&elf, table, i, &reloc) &&
                reloc.kind == HAK_NGX_SLOT && reloc.imported &&
                strcmp(reloc.name, "luaL_newstate") == 0 && walk->found < 8) {
                walk->elf[walk->found] = elf;
                walk->slots[walk->found++] = (void *)reloc.at;
            }
        }
    }
    return 0;
}

unsigned hak_ngx_vm_patch(void)
{
    hak_ngx_function *ours = (hak_ngx_function *)vm_newstate;
    struct vm_walk walk = {.found = 0};

    dl_iterate_phdr(vm_look, &walk);
    for (unsigned i = 0; i < walk.found; i++) {
        hak_ngx_function **at = walk.slots[i];

        if (*at == ours || (vm_find_library(*at) &&
                            hak_ngx_slot_write(&walk.elf[i], at, ours))) {
            walk.ours++;
        }
    }
    return walk.ours;
}

/* ---- what the module asks and says -------------------------------------------------- */

void hak_ngx_vm_enable(bool on)
{
    enabled = on;
}

void hak_ngx_vm_limit(size_t soft_bytes, size_t bytes)
{
    soft = soft_bytes;
    limit = bytes;
}

void hak_ngx_vm_on_need(void (*call)(void))
{
    need = call;
}

void hak_ngx_vm_get_stats(hak_ngx_vm_stats *stats)
{
    memset(stats, 0, sizeof(*stats));
    pthread_mutex_lock(&lock);
    stats->calls = ended_calls;
    stats->limit_refusals = ended_refusals;
    stats->collections = collections;
    for (const struct vm *vm = all; vm != NULL; vm = vm->next) {
        stats->live_bytes += vm->live;
        stats->peak_bytes += vm->peak;
        stats->calls += vm->calls;
        stats->limit_refusals += vm->refusals;
    }
    pthread_mutex_unlock(&lock);
}

/* Only the main thread makes and ends such VMs, and asks. */
static bool vm_has_grown(const struct vm *vm, size_t least)
{
    return vm->is_main && vm->L != NULL &&
           vm->live > vm->low + vm->low / 2 + least;
}

static struct vm *vm_grown(size_t least)
{
    struct vm *vm;

    pthread_mutex_lock(&lock);
    for (vm = all; vm != NULL && !vm_has_grown(vm, least); vm = vm->next) {
    }
    pthread_mutex_unlock(&lock);
    return vm;
}

bool hak_ngx_vm_wanted(size_t least)
{
    return vm_grown(least) != NULL;
}

size_t hak_ngx_vm_collect(size_t least)
{
    size_t freed = 0, before;
    struct vm *vm;

    while ((vm = vm_grown(least)) != NULL) {
        before = vm->live;
        vm->library.gc(vm->L, GC_COLLECT, 0);
        if (vm->stepmul >= 0) {
            vm->library.gc(vm->L, GC_SETSTEPMUL, vm->stepmul);
            vm->stepmul = -1;
        }
        vm->hurried = 0;
        vm->low = vm->live;
        freed += before > vm->live ? before - vm->live : 0;
        collections++;
        hak_heap_trim(vm->heap);
    }
    return freed;
}
