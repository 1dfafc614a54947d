/*
 * names.c - the table of names, and a search in it.
 *
 * The table is sorted, because an object has many relocations and each is
 * looked up. Functions through which libc only hands out blocks
 * (open_memstream, scandir, %ms of scanf) need not be here: our free passes
 * those on. Nor need functions that free only what libc made (freeaddrinfo,
 * globfree, wordfree, tdestroy, fclose), or that call functions given to them
 * (obstacks).
 */
#include "names.h"

#include <stdbool.h>
#include <string.h>

#include "new.h"

#define OURS(function) ((hak_ngx_function *)hak_ngx_##function)
#define ALL(function) OURS(function), OURS(function)

const hak_ngx_name hak_ngx_names[] = {
    {"_ZdaPv", OURS(free), NULL},
    {"_ZdaPvRKSt9nothrow_t", OURS(free), NULL},
    {"_ZdaPvSt11align_val_t", OURS(free), NULL},
    {"_ZdaPvSt11align_val_tRKSt9nothrow_t", OURS(free), NULL},
    {"_ZdaPvm", OURS(free), NULL},
    {"_ZdaPvmSt11align_val_t", OURS(free), NULL},
    {"_ZdlPv", OURS(free), NULL},
    {"_ZdlPvRKSt9nothrow_t", OURS(free), NULL},
    {"_ZdlPvSt11align_val_t", OURS(free), NULL},
    {"_ZdlPvSt11align_val_tRKSt9nothrow_t", OURS(free), NULL},
    {"_ZdlPvm", OURS(free), NULL},
    {"_ZdlPvmSt11align_val_t", OURS(free), NULL},
    {"_Znam", OURS(Znwm), NULL},
    {"_ZnamRKSt9nothrow_t", OURS(ZnwmRKSt9nothrow_t), NULL},
    {"_ZnamSt11align_val_t", OURS(ZnwmSt11align_val_t), NULL},
    {"_ZnamSt11align_val_tRKSt9nothrow_t",
     OURS(ZnwmSt11align_val_tRKSt9nothrow_t), NULL},
    {"_Znwm", OURS(Znwm), NULL},
    {"_ZnwmRKSt9nothrow_t", OURS(ZnwmRKSt9nothrow_t), NULL},
    {"_ZnwmSt11align_val_t", OURS(ZnwmSt11align_val_t), NULL},
    {"_ZnwmSt11align_val_tRKSt9nothrow_t",
     OURS(ZnwmSt11align_val_tRKSt9nothrow_t), NULL},
    {"__asprintf", OURS(asprintf), NULL},
    {"__asprintf_chk", OURS(asprintf_chk), NULL},
    {"__getcwd_chk", OURS(getcwd_chk), NULL},
    {"__getdelim", OURS(getdelim), OURS(any_getdelim)},
    {"__libc_calloc", OURS(calloc), NULL},
    {"__libc_free", OURS(free), OURS(any_free)},
    {"__libc_malloc", OURS(malloc), NULL},
    {"__libc_memalign", OURS(aligned_alloc), NULL},
    {"__libc_realloc", OURS(realloc), OURS(any_realloc)},
    {"__libc_reallocarray", OURS(reallocarray), OURS(any_reallocarray)},
    {"__realpath_chk", OURS(realpath_chk), NULL},
    {"__strdup", OURS(strdup), NULL},
    {"__strndup", OURS(strndup), NULL},
    {"__vasprintf_chk", OURS(vasprintf_chk), NULL},
    {"aligned_alloc", OURS(aligned_alloc), NULL},
    {"argz_add", ALL(argz_add)},
    {"argz_add_sep", ALL(argz_add_sep)},
    {"argz_append", ALL(argz_append)},
    {"argz_delete", ALL(argz_delete)},
    {"argz_insert", ALL(argz_insert)},
    {"argz_replace", ALL(argz_replace)},
    {"asprintf", OURS(asprintf), NULL},
    {"calloc", OURS(calloc), NULL},
    {"canonicalize_file_name", OURS(canonicalize_file_name), NULL},
    {"cfree", OURS(free), OURS(any_free)},
    {"dlmopen", ALL(dlmopen)},
    {"dlopen", ALL(dlopen)},
    {"dlsym", ALL(dlsym)},
    {"dlvsym", ALL(dlvsym)},
    {"envz_add", ALL(envz_add)},
    {"envz_merge", ALL(envz_merge)},
    {"envz_remove", ALL(envz_remove)},
    {"free", OURS(free), OURS(any_free)},
    {"free_aligned_sized", OURS(free), OURS(any_free)},
    {"free_sized", OURS(free), OURS(any_free)},
    {"get_current_dir_name", OURS(get_current_dir_name), NULL},
    {"getcwd", OURS(getcwd), NULL},
    {"getdelim", OURS(getdelim), OURS(any_getdelim)},
    {"getline", OURS(getline), OURS(any_getline)},
    {"malloc", OURS(malloc), NULL},
    {"malloc_usable_size", ALL(malloc_usable_size)},
    {"memalign", OURS(aligned_alloc), NULL},
    {"posix_memalign", OURS(posix_memalign), NULL},
    {"pvalloc", OURS(pvalloc), NULL},
    {"re_compile_pattern", ALL(re_compile_pattern)},
    {"re_match", ALL(re_match)},
    {"re_match_2", ALL(re_match_2)},
    {"re_search", ALL(re_search)},
    {"re_search_2", ALL(re_search_2)},
    {"realloc", OURS(realloc), OURS(any_realloc)},
    {"reallocarray", OURS(reallocarray), OURS(any_reallocarray)},
    {"realpath", OURS(realpath), NULL},
    {"regfree", ALL(regfree)},
    {"strdup", OURS(strdup), NULL},
    {"strndup", OURS(strndup), NULL},
    {"valloc", OURS(valloc), NULL},
    {"vasprintf", OURS(vasprintf), NULL},
    {"wcsdup", OURS(wcsdup), NULL},
};

const size_t hak_ngx_names_count =
    sizeof(hak_ngx_names) / sizeof(hak_ngx_names[0]);

/*
 * Most names of most objects are C++ names other than its operators: these, and
 * names with a first letter that none of ours has, are rejected at once.
 */
static bool may_be_ours(const char *name)
{
    if (name[0] == '_' && name[1] == 'Z') {
        return (name[2] == 'n' || name[2] == 'd') &&
               (name[3] == 'w' || name[3] == 'a' || name[3] == 'l');
    }
    return name[0] != '\0' && strchr("_acdefgmprsvw", name[0]) != NULL;
}

const hak_ngx_name *hak_ngx_name_find(const char *name)
{
    size_t low = 0, high = may_be_ours(name) ? hak_ngx_names_count : 0;

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
