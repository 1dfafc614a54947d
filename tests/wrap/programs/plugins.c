/*
 * plugins.c WHAT DIRECTORY - blocks cross between the program and libraries
 * that are opened in every way, and functions that are looked up in every way.
 */
#include "program.h"

static const char *directory;

static void *open_plugin(const char *name, int mode)
{
    char path[4096];
    void *library;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    library = dlopen(path, mode);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
    }
    NEED(library != NULL);
    return library;
}

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);

    NEED(found != NULL && dlerror() == NULL);
    return found;
}

/* Blocks of every lane, from either side to the other. */
static void exchange(void *library)
{
    static const size_t sizes[] = {0, 24, 1000, 30000, 300000, 3000000};
    void *(*give)(size_t);
    void (*take)(void *);

    *(void **)&give = symbol(library, "plugin_give");
    *(void **)&take = symbol(library, "plugin_take");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        void *p = give(sizes[i]);

        NEED(p != NULL);
        fill(p, sizes[i], 1);
        free(realloc(p, sizes[i] + 5000));
        take(malloc(hide(sizes[i])));
        take(strdup("a text"));
    }
}

static void *open_often(void *name)
{
    for (int i = 0; i < 20; i++) {
        void *library = open_plugin(name, RTLD_NOW | RTLD_DEEPBIND);

        exchange(library);
        NEED(dlclose(library) == 0);
    }
    return NULL;
}

static void deepbind(void)
{
    static char name[] = "libplugin.so";
    pthread_t threads[3];

    for (int i = 0; i < 3; i++) {
        NEED(pthread_create(&threads[i], NULL, open_often, name) == 0);
    }
    for (int i = 0; i < 3; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
    NEED(dlopen("no such library", RTLD_NOW | RTLD_DEEPBIND) == NULL);
    NEED(strstr(dlerror(), "no such library") != NULL);
}

static void deepbind_in_the_first_namespace(void)
{
    char path[4096];
    void *library;

    snprintf(path, sizeof(path), "%s/libplugin.so", directory);
    library = dlmopen(LM_ID_BASE, path, RTLD_NOW | RTLD_DEEPBIND);
    NEED(library != NULL);
    exchange(library);
}

/* A library whose own calls stay inside it, malloc and free among them. */
static void private_allocator(void)
{
    void *library = open_plugin("libprivate.so", RTLD_NOW | RTLD_LOCAL);
    void *(*give)(size_t), *(*theirs)(size_t);
    void (*take)(void *), (*their_free)(void *);

    *(void **)&give = symbol(library, "plugin_give");
    *(void **)&take = symbol(library, "plugin_take");
    *(void **)&theirs = symbol(library, "malloc");
    *(void **)&their_free = symbol(library, "free");
    NEED(theirs != malloc && their_free != free);
    take(give(100));
    their_free(theirs(100));
    their_free(give(100));
    take(theirs(100));
}

/* The library finds another by its own RUNPATH, and its own neighbours. */
static void runpath(void)
{
    void *library = open_plugin("libouter.so", RTLD_NOW | RTLD_DEEPBIND);
    void *(*open)(const char *), *(*next)(const char *), *found;

    *(void **)&open = symbol(library, "plugin_open");
    *(void **)&next = symbol(library, "plugin_next");
    NEED(dlopen("libinner.so", RTLD_NOW) == NULL);
    found = open("libinner.so");
    if (found == NULL) {
        fprintf(stderr, "%s\n", dlerror());
    }
    NEED(found != NULL);
    exchange(found);
    exchange(library);
    NEED(next("plugin_give") == NULL);
    NEED(next("strlen") != NULL);
    NEED(dlsym(RTLD_DEFAULT, "plugin_give") == NULL);
}

/* Another namespace has a C library and a malloc of its own. */
static void namespaces(void)
{
    for (int i = 0; i < 3; i++) {
        char path[4096];
        void *library, *(*give)(size_t), *(*theirs)(size_t);
        void (*take)(void *), (*their_free)(void *);

        snprintf(path, sizeof(path), "%s/libplugin.so", directory);
        library = dlmopen(LM_ID_NEWLM, path, RTLD_NOW);
        NEED(library != NULL);
        *(void **)&give = symbol(library, "plugin_give");
        *(void **)&take = symbol(library, "plugin_take");
        *(void **)&theirs = symbol(library, "malloc");
        *(void **)&their_free = symbol(library, "free");
        NEED(!owned(give(1000)));
        for (size_t size = 0; size < 300000; size += 999) {
            void *p = give(size), *q = malloc(hide(size)), *r = theirs(size);

            NEED(p != NULL && q != NULL && r != NULL);
            fill(p, size, 2);
            fill(q, size, 3);
            NEED(filled(p, size, 2) && filled(q, size, 3));
            i & 1 ? take(p) : their_free(p);
            i & 1 ? their_free(r) : take(r);
            free(q);
        }
        NEED(dlclose(library) == 0);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } ways[] = {
        {"deepbind", deepbind},
        {"base", deepbind_in_the_first_namespace},
        {"private", private_allocator},
        {"runpath", runpath},
        {"namespaces", namespaces},
    };

    NEED(argc == 3);
    directory = argv[2];
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        if (strcmp(ways[i].name, argv[1]) == 0) {
            ways[i].run();
            puts("well");
            return 0;
        }
    }
    return 2;
}
