/*
 * object.c - shared objects for tests of slots: they call libc through slots
 * of their own. What the macros add, hak_ngx_patch must find, refuse, or leave
 * alone.
 */
#include <argz.h>
#include <dlfcn.h>
#include <malloc.h>
#include <obstack.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN __attribute__((visibility("default")))

SHOWN void *object_malloc(size_t size);
SHOWN void *object_realloc(void *p, size_t size);
SHOWN void object_free(void *p);
SHOWN char *object_strdup(const char *s);
SHOWN void *(*object_pointer(void))(size_t size);

void *object_malloc(size_t size)
{
    return malloc(size);
}

void *object_realloc(void *p, size_t size)
{
    return realloc(p, size);
}

void object_free(void *p)
{
    free(p);
}

char *object_strdup(const char *s)
{
    return strdup(s);
}

/* A slot of the other kind: GLOB_DAT. */
void *(*object_pointer(void))(size_t size)
{
    return malloc;
}

#ifdef WITH_DATA
/* Pointers in the data, which the object may change as it likes. */
SHOWN void *(*object_data)(size_t size) = malloc;
SHOWN void (*object_data_free)(void *p) = free;
SHOWN void (*object_changed)(void *p) = free;
SHOWN void object_change(void);

static void keep(void *p)
{
    (void)p;
}

void object_change(void)
{
    object_changed = keep;
}
#endif

#ifdef WITH_ARGZ
SHOWN int object_argz(char **argz, size_t *length);

int object_argz(char **argz, size_t *length)
{
    return argz_add(argz, length, "word");
}
#endif

/* A word in the code, as hand-written assembly may have it. */
#ifdef WITH_TEXT
__asm__(".text\n.p2align 3\n.quad " WITH_TEXT "\n");
extern __attribute__((weak)) void friend_call(void);
SHOWN void object_call_friend(void);

void object_call_friend(void)
{
    if (friend_call != NULL) {
        friend_call();
    }
}
#endif

#ifdef WITH_FRIEND
SHOWN void friend_call(void);

void friend_call(void)
{
}
#endif

#ifdef WITH_DL
SHOWN void *object_dlopen(const char *file, int mode);
SHOWN void *object_dlmopen(Lmid_t space, const char *file, int mode);
SHOWN void *object_dlsym(void *handle, const char *name);
SHOWN void *object_dlvsym(void *handle, const char *name, const char *version);

void *object_dlopen(const char *file, int mode)
{
    void *handle = dlopen(file, mode);

    __asm__("" : "+r"(handle)); /* a call, not a jump */
    return handle;
}

void *object_dlmopen(Lmid_t space, const char *file, int mode)
{
    void *handle = dlmopen(space, file, mode);

    __asm__("" : "+r"(handle));
    return handle;
}

void *object_dlsym(void *handle, const char *name)
{
    void *found = dlsym(handle, name);

    __asm__("" : "+r"(found));
    return found;
}

void *object_dlvsym(void *handle, const char *name, const char *version)
{
    void *found = dlvsym(handle, name, version);

    __asm__("" : "+r"(found));
    return found;
}
#endif

/* Two blocks are freed while it is loaded: one of its own, and one it gets. */
#ifdef WITH_CONSTRUCTOR
__attribute__((constructor)) static void start(void)
{
    free(realloc(malloc(10), 1000));
}
#endif

/* What libc would resize or free. */
#ifdef WITH_CALLERS
SHOWN ssize_t object_getline(char **line, size_t *room, FILE *file);
SHOWN void object_regfree(regex_t *pattern);
SHOWN const char *object_compile(regex_t *pattern, const char *text);
SHOWN int object_search(regex_t *pattern, const char *text,
                        struct re_registers *registers);
SHOWN void *object_reallocarray(void *p, size_t count, size_t size);
SHOWN size_t object_usable(void *p);
SHOWN char *object_grow(const char *text, int times);

ssize_t object_getline(char **line, size_t *room, FILE *file)
{
    return getline(line, room, file);
}

void object_regfree(regex_t *pattern)
{
    regfree(pattern);
}

const char *object_compile(regex_t *pattern, const char *text)
{
    return re_compile_pattern(text, strlen(text), pattern);
}

int object_search(regex_t *pattern, const char *text,
                  struct re_registers *registers)
{
    int length = (int)strlen(text);

    return re_search(pattern, text, length, 0, length, registers);
}

void *object_reallocarray(void *p, size_t count, size_t size)
{
    return reallocarray(p, count, size);
}

size_t object_usable(void *p)
{
    return malloc_usable_size(p);
}

/* An obstack takes and frees its chunks by the functions it is given. */
#define obstack_chunk_alloc malloc
#define obstack_chunk_free free

char *object_grow(const char *text, int times)
{
    struct obstack stack;
    char *copy;

    obstack_init(&stack);
    while (times-- > 0) {
        obstack_grow(&stack, text, strlen(text));
    }
    obstack_1grow(&stack, '\0');
    copy = strdup(obstack_finish(&stack));
    obstack_free(&stack, NULL);
    return copy;
}
#endif

/* An allocator: its blocks are not libc's. */
#ifdef WITH_ALLOCATOR
SHOWN void *malloc(size_t size);
SHOWN void free(void *p);
static char arena[100000];
static size_t used;

void *malloc(size_t size)
{
    used += (size + 15) & ~(size_t)15;
    return arena + used - ((size + 15) & ~(size_t)15);
}

void free(void *p)
{
    if (p != NULL && ((char *)p < arena || (char *)p >= arena + used)) {
        abort();
    }
}
#endif

#ifdef WITH_OWN
/* A function of its own, of a name that libc may have one day. */
SHOWN int free_sized(void *p, size_t size);
SHOWN int object_own(void *p);

int free_sized(void *p, size_t size)
{
    return p == NULL ? (int)size : -1;
}

int object_own(void *p)
{
    return free_sized(p, 7);
}
#endif

#ifdef WITH_NEW
SHOWN void *object_new(size_t size);
SHOWN void object_delete(void *p);
void *_Znwm(size_t size);
void _ZdlPv(void *p);

void *object_new(size_t size)
{
    return _Znwm(size);
}

void object_delete(void *p)
{
    _ZdlPv(p);
}
#endif
