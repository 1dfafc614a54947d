/*
 * libaudit.c - for LD_AUDIT: the dynamic linker loads it with a C library of
 * its own, and tells it what it does. It allocates each time.
 */
#include <link.h>

#include "program.h"

static char *kept;

unsigned la_version(unsigned version)
{
    return version;
}

unsigned la_objopen(struct link_map *map, Lmid_t space, uintptr_t *cookie)
{
    char *name;

    (void)cookie;
    NEED(asprintf(&name, "%ld %s", (long)space, map->l_name) > 0);
    free(kept);
    kept = name;
    return LA_FLG_BINDTO | LA_FLG_BINDFROM;
}
