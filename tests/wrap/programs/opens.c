/*
 * opens.c LIBOPENED [LIBHAKMEM] - opens and closes libraries. The first hands
 * blocks both ways; the second is libhakmem.so, opened like any other: its
 * malloc is then asked for by hand, by threads that end after it was closed.
 */
#include "program.h"

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);

    NEED(found != NULL);
    return found;
}

static void open_and_close(const char *path)
{
    for (int i = 0; i < 50; i++) {
        void *library = dlopen(path, i % 2 ? RTLD_NOW : RTLD_LAZY);
        char *(*give)(size_t);
        void (*take)(void *);
        char *p, *q;

        if (library == NULL) {
            fprintf(stderr, "%s\n", dlerror());
        }
        NEED(library != NULL);
        *(void **)&give = symbol(library, "opened_give");
        *(void **)&take = symbol(library, "opened_take");
        p = give(100 + (size_t)i * 100);
        q = malloc(100 + (size_t)i * 100);
        NEED(owned(p) == owned(q));
        take(q);
        NEED(dlclose(library) == 0);
        free(p);
    }
}

static void *(*their_malloc)(size_t);
static void (*their_free)(void *);
static pthread_barrier_t closed;

static void *use(void *arg)
{
    void *p = their_malloc(100), *q = their_malloc(100), *r = malloc(100);

    NEED(p != NULL && q != NULL && r != NULL);
    their_free(p);
    pthread_barrier_wait(&closed); /* used */
    pthread_barrier_wait(&closed); /* closed */
    their_free(q);
    their_free(r); /* the C library's: told by its address */
    return arg;
}

static void open_hakmem(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    pthread_t threads[3];

    NEED(library != NULL);
    *(void **)&their_malloc = symbol(library, "malloc");
    *(void **)&their_free = symbol(library, "free");
    NEED(their_malloc != malloc);
    NEED(pthread_barrier_init(&closed, NULL, 4) == 0);
    for (int i = 0; i < 3; i++) {
        NEED(pthread_create(&threads[i], NULL, use, NULL) == 0);
    }
    pthread_barrier_wait(&closed);
    NEED(dlclose(library) == 0);
    pthread_barrier_wait(&closed);
    for (int i = 0; i < 3; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
}

int main(int argc, char **argv)
{
    NEED(argc > 1);
    open_and_close(argv[1]);
    if (argc > 2) {
        open_hakmem(argv[2]);
    }
    puts("well");
    return 0;
}
