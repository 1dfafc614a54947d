/*
 * hooks.c - a module that stands in for profilers: it wraps CPython's
 * allocators in the ways that they do, and puts back what it found.
 *
 *   start(domains, kind)  a mask of domains; "context": what was there is kept
 *       where the hook's ctx points, as tracemalloc, memray and ddtrace do;
 *       "hidden": in variables of which ctx says nothing
 *   start_odd(domains, kind)  a hook whose ctx leads to something else; for good
 *   stop()
 *   patch(), unpatch() the malloc family in the slots of every loaded
 *       object, as memray does besides
 *   count()               requests seen
 */
#define _GNU_SOURCE
#include <Python.h>

#include <dlfcn.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DOMAINS 3

static PyMemAllocatorEx saved[DOMAINS];
static long which_are_on;
static volatile unsigned long count;

/* ---- the allocators ---------------------------------------------------------- */

#define HOOK(kind, of_ctx)                                                     \
    static void *kind##_malloc(void *ctx, size_t size)                         \
    {                                                                          \
        PyMemAllocatorEx *to = of_ctx;                                         \
                                                                               \
        count++;                                                               \
        return to->malloc(to->ctx, size);                                      \
    }                                                                          \
    static void *kind##_calloc(void *ctx, size_t n, size_t size)               \
    {                                                                          \
        PyMemAllocatorEx *to = of_ctx;                                         \
                                                                               \
        count++;                                                               \
        return to->calloc(to->ctx, n, size);                                   \
    }                                                                          \
    static void *kind##_realloc(void *ctx, void *p, size_t size)               \
    {                                                                          \
        PyMemAllocatorEx *to = of_ctx;                                         \
                                                                               \
        count++;                                                               \
        return to->realloc(to->ctx, p, size);                                  \
    }                                                                          \
    static void kind##_free(void *ctx, void *p)                                \
    {                                                                          \
        PyMemAllocatorEx *to = of_ctx;                                         \
                                                                               \
        to->free(to->ctx, p);                                                  \
    }

HOOK(context, ctx)
HOOK(raw, ((void)ctx, &saved[0]))
HOOK(mem, ((void)ctx, &saved[1]))
HOOK(obj, ((void)ctx, &saved[2]))

#define FUNCTIONS(kind)                                                        \
    {                                                                          \
        NULL, kind##_malloc, kind##_calloc, kind##_realloc, kind##_free        \
    }

static const PyMemAllocatorEx hidden[DOMAINS] = {FUNCTIONS(raw), FUNCTIONS(mem),
                                                 FUNCTIONS(obj)};
static const PyMemAllocatorEx context = FUNCTIONS(context);

static PyObject *start(PyObject *self, PyObject *args)
{
    const char *kind;

    (void)self;
    if (!PyArg_ParseTuple(args, "ls", &which_are_on, &kind)) {
        return NULL;
    }
    for (int i = 0; i < DOMAINS; i++) {
        PyMemAllocatorEx hook =
            strcmp(kind, "context") == 0 ? context : hidden[i];

        if ((which_are_on >> i & 1) != 0) {
            PyMem_GetAllocator((PyMemAllocatorDomain)i, &saved[i]);
            hook.ctx = hook.malloc == context.malloc ? &saved[i] : NULL;
            PyMem_SetAllocator((PyMemAllocatorDomain)i, &hook);
        }
    }
    Py_RETURN_NONE;
}

/* ---- odd ones ------------------------------------------------------------------ */

/* "letter": the first byte is that which CPython's debug hooks have there. */
static struct {
    long letter;
    PyMemAllocatorEx saved;
} letters[DOMAINS] = {{'r'}, {'m'}, {'o'}};

/* "constant": read-only, though its segment is not. */
static const PyMemAllocatorEx constants[DOMAINS] = {
    FUNCTIONS(raw), FUNCTIONS(mem), FUNCTIONS(obj)};

/* "table": at the same places, functions that take no ctx. */
static void *table_malloc(size_t size)
{
    return obj_malloc(NULL, size);
}

static void *table_calloc(size_t n, size_t size)
{
    return obj_calloc(NULL, n, size);
}

static void *table_realloc(void *p, size_t size)
{
    return obj_realloc(NULL, p, size);
}

static void table_free(void *p)
{
    obj_free(NULL, p);
}

static struct {
    void *nothing;
    void *(*malloc)(size_t size);
    void *(*calloc)(size_t n, size_t size);
    void *(*realloc)(void *p, size_t size);
    void (*free)(void *p);
} table = {NULL, table_malloc, table_calloc, table_realloc, table_free};

static void *by_table_malloc(void *ctx, size_t size)
{
    return table.malloc(size);
}

static void *by_table_calloc(void *ctx, size_t n, size_t size)
{
    return table.calloc(n, size);
}

static void *by_table_realloc(void *ctx, void *p, size_t size)
{
    return table.realloc(p, size);
}

static void by_table_free(void *ctx, void *p)
{
    table.free(p);
}

static const PyMemAllocatorEx by_table = {
    &table, by_table_malloc, by_table_calloc, by_table_realloc, by_table_free};

static PyObject *start_odd(PyObject *self, PyObject *args)
{
    long domains;
    const char *kind;

    (void)self;
    if (!PyArg_ParseTuple(args, "ls", &domains, &kind)) {
        return NULL;
    }
    for (int i = 0; i < DOMAINS; i++) {
        PyMemAllocatorEx hook = hidden[i];

        if ((domains >> i & 1) == 0) {
            continue;
        }
        PyMem_GetAllocator((PyMemAllocatorDomain)i, &saved[i]);
        if (strcmp(kind, "letter") == 0) {
            letters[i].saved = saved[i];
            hook.ctx = &letters[i];
        } else if (strcmp(kind, "constant") == 0) {
            hook = context;
            hook.ctx = (void *)&constants[i];
        } else if (strcmp(kind, "table") == 0) {
            hook = by_table;
        } else if (strcmp(kind, "one") == 0) { /* what raw had, for all */
            hook = context;
            hook.ctx = &saved[0];
        } else {
            hook.ctx = strcmp(kind, "number") == 0 ? (void *)8 : (void *)-8;
        }
        PyMem_SetAllocator((PyMemAllocatorDomain)i, &hook);
    }
    Py_RETURN_NONE;
}

static PyObject *stop(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    for (int i = 0; i < DOMAINS; i++) {
        if ((which_are_on >> i & 1) != 0) {
            PyMem_SetAllocator((PyMemAllocatorDomain)i, &saved[i]);
        }
    }
    which_are_on = 0;
    Py_RETURN_NONE;
}

static PyObject *get_count(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromUnsignedLong(count);
}

/* ---- slots --------------------------------------------------------------------- */

static void *slot_malloc(size_t size)
{
    count++;
    return malloc(size);
}

static void *slot_calloc(size_t n, size_t size)
{
    count++;
    return calloc(n, size);
}

static void *slot_realloc(void *p, size_t size)
{
    count++;
    return realloc(p, size);
}

static void slot_free(void *p)
{
    free(p);
}

static void *slot_mmap(void *at, size_t n, int prot, int flags, int fd, off_t o)
{
    count++;
    return mmap(at, n, prot, flags, fd, o);
}

static int slot_munmap(void *at, size_t n)
{
    return munmap(at, n);
}

static const struct {
    const char *name;
    void *ours;
} patches[] = {
    {"malloc", (void *)slot_malloc},   {"calloc", (void *)slot_calloc},
    {"realloc", (void *)slot_realloc}, {"free", (void *)slot_free},
    {"mmap", (void *)slot_mmap},       {"munmap", (void *)slot_munmap}};

#if defined(__x86_64__)
#define IS_SLOT(type)                                                          \
    ((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT)
#else
#define IS_SLOT(type)                                                          \
    ((type) == R_AARCH64_JUMP_SLOT || (type) == R_AARCH64_GLOB_DAT)
#endif

static void patch_table(ElfW(Addr) base, const ElfW(Rela) * rela, size_t bytes,
                        const ElfW(Sym) * symbols, const char *strings, int on)
{
    long page = sysconf(_SC_PAGESIZE);
    void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);

    for (size_t i = 0; i < bytes / sizeof(*rela); i++) {
        const char *name =
            strings + symbols[ELF64_R_SYM(rela[i].r_info)].st_name;
        void **slot = (void **)(base + rela[i].r_offset);

        for (size_t k = 0; k < sizeof(patches) / sizeof(patches[0]); k++) {
            if (IS_SLOT(ELF64_R_TYPE(rela[i].r_info)) &&
                strcmp(name, patches[k].name) == 0) {
                mprotect((void *)((uintptr_t)slot & -page), page,
                         PROT_READ | PROT_WRITE);
                *slot = on ? patches[k].ours : dlsym(libc, name);
            }
        }
    }
}

static int patch_object(struct dl_phdr_info *info, size_t size, void *on)
{
    const ElfW(Dyn) *dyn = NULL;
    const ElfW(Rela) *rela = NULL, *jump = NULL;
    size_t rela_bytes = 0, jump_bytes = 0;
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;

    (void)size;
    if (strstr(info->dlpi_name, "/ld-") != NULL ||
        strstr(info->dlpi_name, "libc.so") != NULL ||
        strstr(info->dlpi_name, "vdso") != NULL ||
        strstr(info->dlpi_name, "hooks") != NULL) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC) {
            dyn = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
        }
    }
    for (; dyn != NULL && dyn->d_tag != DT_NULL; dyn++) {
        switch (dyn->d_tag) {
        case DT_RELA: rela = (const void *)dyn->d_un.d_ptr; break;
        case DT_RELASZ: rela_bytes = dyn->d_un.d_val; break;
        case DT_JMPREL: jump = (const void *)dyn->d_un.d_ptr; break;
        case DT_PLTRELSZ: jump_bytes = dyn->d_un.d_val; break;
        case DT_SYMTAB: symbols = (const void *)dyn->d_un.d_ptr; break;
        case DT_STRTAB: strings = (const void *)dyn->d_un.d_ptr; break;
        default: break;
        }
    }
    if (symbols != NULL && strings != NULL) {
        patch_table(info->dlpi_addr, rela, rela_bytes, symbols, strings,
                    *(int *)on);
        patch_table(info->dlpi_addr, jump, jump_bytes, symbols, strings,
                    *(int *)on);
    }
    return 0;
}

static PyObject *patch(PyObject *self, PyObject *unused)
{
    int on = 1;

    (void)self;
    (void)unused;
    dl_iterate_phdr(patch_object, &on);
    Py_RETURN_NONE;
}

static PyObject *unpatch(PyObject *self, PyObject *unused)
{
    int on = 0;

    (void)self;
    (void)unused;
    dl_iterate_phdr(patch_object, &on);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {{"start", start, METH_VARARGS, NULL},
                                  {"start_odd", start_odd, METH_VARARGS, NULL},
                                  {"stop", stop, METH_NOARGS, NULL},
                                  {"count", get_count, METH_NOARGS, NULL},
                                  {"patch", patch, METH_NOARGS, NULL},
                                  {"unpatch", unpatch, METH_NOARGS, NULL},
                                  {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        .m_name = "hooks", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit_hooks(void)
{
    return PyModule_Create(&definition);
}
