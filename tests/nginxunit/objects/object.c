/*
 * object.c - shared objects for tests of slots: they call libc through slots
 * of their own. What the macros add, hak_ngx_patch must refuse, or leave alone.
 */
#include <argz.h>
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
/* A pointer in the data, which the object may change as it likes. */
SHOWN void *(*object_data)(size_t size) = malloc;
#endif

#ifdef WITH_ARGZ
SHOWN int object_argz(char **argz, size_t *length);

int object_argz(char **argz, size_t *length)
{
    return argz_add(argz, length, "word");
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

#ifdef WITH_MODULE
/* What makes a module of nginx's: an import of the program's. */
extern __attribute__((weak)) void ngx_of_the_program(void);
SHOWN void object_module(void);

void object_module(void)
{
    if (ngx_of_the_program != NULL) {
        ngx_of_the_program();
    }
}
#endif
