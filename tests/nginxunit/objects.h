/*
 * objects.h - what the tests of slots do with objects/object.c.
 */
#ifndef NGX_OBJECTS_H
#define NGX_OBJECTS_H

#include "patch/patch.h"

#include <dlfcn.h>

#include "patch/names.h"
#include "unit.h"

struct object {
    void *handle;
    void *(*malloc)(size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    char *(*strdup)(const char *);
    void *(*(*pointer)(void))(size_t);
};

static void *function(void *handle, const char *name)
{
    void *found = dlsym(handle, name);

    cr_assert_not_null(found, "%s", name);
    return found;
}

/* Its file. */
static const char *path_of(const char *name)
{
    static char path[400];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 60);

    cr_assert_gt(length, 0);
    path[length] = '\0';
    snprintf(strrchr(path, '/'), 60, "/objects/lib%s.so", name);
    return path;
}

static struct object opened(void *handle)
{
    struct object object = {.handle = handle};

    cr_assert_not_null(object.handle, "%s", dlerror());
    __extension__({
        object.malloc = function(object.handle, "object_malloc");
        object.realloc = function(object.handle, "object_realloc");
        object.free = function(object.handle, "object_free");
        object.strdup = function(object.handle, "object_strdup");
        object.pointer = function(object.handle, "object_pointer");
    });
    return object;
}

static struct object load(const char *name, int how)
{
    return opened(dlopen(path_of(name), how));
}

static void patch(hak_ngx_object *objects, size_t n)
{
    char why[200];

    cr_assert_eq(hak_ngx_patch(objects, n, why, sizeof(why)), 0, "%s", why);
}

#endif /* NGX_OBJECTS_H */
