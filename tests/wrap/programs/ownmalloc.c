/*
 * ownmalloc.c LIBPLUGIN - a program with a malloc of its own, as jemalloc or
 * another linked into it would be: all libraries use it, and so does the
 * plugin, unless it is opened otherwise, which is left as it is.
 */
#include <sys/mman.h>

#include "program.h"

static size_t served;

/* A page or more for each block, its size in front. */
void *malloc(size_t size)
{
    size_t *p = mmap(NULL, size + 16, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    NEED(p != MAP_FAILED);
    served++;
    p[0] = size + 16;
    p[1] = 0x6d656e74;
    return p + 2;
}

void free(void *p)
{
    size_t *head = (size_t *)p - 2;

    if (p != NULL) {
        NEED(head[1] == 0x6d656e74);
        munmap(head, head[0]);
    }
}

void *calloc(size_t count, size_t size)
{
    return malloc(count * size);
}

void *realloc(void *p, size_t size)
{
    void *moved = malloc(size);
    size_t old = p != NULL ? ((size_t *)p)[-2] - 16 : 0;

    memcpy(moved, p != NULL ? p : moved, old < size ? old : size);
    free(p);
    return moved;
}

/* The names glibc has for itself, too. */
void *__libc_malloc(size_t size)
{
    return malloc(size);
}

void *__libc_calloc(size_t count, size_t size)
{
    return calloc(count, size);
}

void *__libc_realloc(void *p, size_t size)
{
    return realloc(p, size);
}

void __libc_free(void *p)
{
    free(p);
}

/* With HAKMEM_FORCE_LIBC_ALLOC=1 operator new, still ours, leads back here. */
static void use_new(void)
{
    void *(*new_of)(size_t);
    void (*delete_of)(void *);

    *(void **)&new_of = dlsym(RTLD_DEFAULT, "_Znwm");
    *(void **)&delete_of = dlsym(RTLD_DEFAULT, "_ZdlPv");
    if (new_of != NULL && delete_of != NULL) {
        delete_of(new_of(100));
    }
}

int main(int argc, char **argv)
{
    void *library, *(*give)(size_t), *libc = dlopen("libc.so.6", RTLD_LAZY);
    void (*take)(void *);
    size_t before;

    NEED(argc == 2 && libc != NULL);
    library = dlopen(argv[1], RTLD_NOW);
    NEED(library != NULL);
    *(void **)&give = dlsym(library, "plugin_give");
    *(void **)&take = dlsym(library, "plugin_take");
    before = served;
    take(malloc(hide(100)));
    free(give(100));
    free(strdup("a text"));
    NEED(served == before + 3);
    NEED(dlsym(NULL, "free") == (void *)free);
    /* The C library's own is what it is without us. */
    *(void **)&give = dlsym(libc, "malloc");
    *(void **)&take = dlsym(libc, "free");
    NEED((void *)give != (void *)malloc);
    take(give(100));
    NEED(!owned(give(100)));
    use_new();
    puts("well");
    return 0;
}
