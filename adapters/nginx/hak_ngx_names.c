/*
 * hak_ngx_names.c - the table of names, and a search in it.
 *
 * An object's relocations are many and each is looked up: hence in order.
 * What libc merely hands out (open_memstream, scandir, %ms of scanf) need not
 * be here: a free of ours passes it on.
 */
#include "hak_ngx_names.h"

#include <string.h>

#include "hak_ngx_new.h"

#define OURS(function) ((hak_ngx_function *)hak_ngx_##function)

const hak_ngx_name hak_ngx_names[] = {
    {"_ZdaPv", OURS(free)},
    {"_ZdaPvRKSt9nothrow_t", OURS(free)},
    {"_ZdaPvSt11align_val_t", OURS(free)},
    {"_ZdaPvSt11align_val_tRKSt9nothrow_t", OURS(free)},
    {"_ZdaPvm", OURS(free)},
    {"_ZdaPvmSt11align_val_t", OURS(free)},
    {"_ZdlPv", OURS(free)},
    {"_ZdlPvRKSt9nothrow_t", OURS(free)},
    {"_ZdlPvSt11align_val_t", OURS(free)},
    {"_ZdlPvSt11align_val_tRKSt9nothrow_t", OURS(free)},
    {"_ZdlPvm", OURS(free)},
    {"_ZdlPvmSt11align_val_t", OURS(free)},
    {"_Znam", OURS(Znam)},
    {"_ZnamRKSt9nothrow_t", OURS(ZnamRKSt9nothrow_t)},
    {"_ZnamSt11align_val_t", OURS(ZnamSt11align_val_t)},
    {"_ZnamSt11align_val_tRKSt9nothrow_t",
     OURS(ZnamSt11align_val_tRKSt9nothrow_t)},
    {"_Znwm", OURS(Znwm)},
    {"_ZnwmRKSt9nothrow_t", OURS(ZnwmRKSt9nothrow_t)},
    {"_ZnwmSt11align_val_t", OURS(ZnwmSt11align_val_t)},
    {"_ZnwmSt11align_val_tRKSt9nothrow_t",
     OURS(ZnwmSt11align_val_tRKSt9nothrow_t)},
    {"__asprintf", OURS(asprintf)},
    {"__asprintf_chk", OURS(asprintf_chk)},
    {"__getcwd_chk", OURS(getcwd_chk)},
    {"__getdelim", OURS(getdelim)},
    {"__libc_calloc", OURS(calloc)},
    {"__libc_free", OURS(free)},
    {"__libc_malloc", OURS(malloc)},
    {"__libc_memalign", OURS(aligned_alloc)},
    {"__libc_realloc", OURS(realloc)},
    {"__realpath_chk", OURS(realpath_chk)},
    {"__strdup", OURS(strdup)},
    {"__strndup", OURS(strndup)},
    {"__vasprintf_chk", OURS(vasprintf_chk)},
    {"aligned_alloc", OURS(aligned_alloc)},
    {"argz_add", NULL},
    {"argz_add_sep", NULL},
    {"argz_append", NULL},
    {"argz_delete", NULL},
    {"argz_insert", NULL},
    {"argz_replace", NULL},
    {"asprintf", OURS(asprintf)},
    {"calloc", OURS(calloc)},
    {"canonicalize_file_name", OURS(canonicalize_file_name)},
    {"cfree", OURS(free)},
    {"envz_add", NULL},
    {"envz_merge", NULL},
    {"envz_remove", NULL},
    {"envz_strip", NULL},
    {"free", OURS(free)},
    {"free_aligned_sized", OURS(free)},
    {"free_sized", OURS(free)},
    {"get_current_dir_name", OURS(get_current_dir_name)},
    {"getcwd", OURS(getcwd)},
    {"getdelim", OURS(getdelim)},
    {"getline", OURS(getline)},
    {"malloc", OURS(malloc)},
    {"malloc_usable_size", OURS(malloc_usable_size)},
    {"memalign", OURS(aligned_alloc)},
    {"posix_memalign", OURS(posix_memalign)},
    {"pvalloc", OURS(pvalloc)},
    {"realloc", OURS(realloc)},
    {"reallocarray", OURS(reallocarray)},
    {"realpath", OURS(realpath)},
    {"strdup", OURS(strdup)},
    {"strndup", OURS(strndup)},
    {"valloc", OURS(valloc)},
    {"vasprintf", OURS(vasprintf)},
    {"wcsdup", OURS(wcsdup)},
};

const size_t hak_ngx_names_count =
    sizeof(hak_ngx_names) / sizeof(hak_ngx_names[0]);

const hak_ngx_name *hak_ngx_name_find(const char *name)
{
    size_t low = 0, high = hak_ngx_names_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, hak_ngx_names[middle].name);

        if (order == 0) {
            return &hak_ngx_names[middle];
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}
