/*
 * libearly.c - a library whose constructor runs before the C library's own,
 * when there is no environment yet (-z initfirst), and asks for memory. It
 * also takes so many thread keys that setting a later one allocates, and asks
 * for a name that nobody has: what dlsym says of it is a block that is resized
 * and freed when nothing has been looked up yet.
 */
#include <dlfcn.h>

#include "program.h"

void *early_blocks[3];

__attribute__((constructor)) static void early(void)
{
    early_blocks[0] = malloc(100);
    early_blocks[1] = calloc(10, 100);
    early_blocks[2] = realloc(hide_pointer(NULL), 5000);
    NEED(dlsym(RTLD_DEFAULT, "nobody_has_this_name") == NULL);
    NEED(dlerror() != NULL && dlerror() == NULL);
    for (int i = 0; i < 40; i++) {
        pthread_key_t key;

        NEED(pthread_key_create(&key, NULL) == 0);
    }
}
