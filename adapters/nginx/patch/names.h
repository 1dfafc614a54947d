/*
 * names.h - the functions that patched objects call, and the table that
 * slots.c finds them in.
 *
 * Each does what the function named after hak_ngx_ does, as glibc does it where
 * the standards leave a choice. C++'s are in new.h.
 */
#ifndef HAK_NGX_NAMES_H
#define HAK_NGX_NAMES_H

#include <dlfcn.h>
#include <regex.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>
#include <wchar.h>

typedef void hak_ngx_function(void);

/*
 * A name that objects import, and what its slot will point to: `ours` in served
 * objects; in all others `any`, which goes by a block's address and allocates
 * nothing from us. If `any` is NULL such slots stay as they are.
 */
typedef struct hak_ngx_name {
    const char *name;
    hak_ngx_function *ours;
    hak_ngx_function *any;
} hak_ngx_name;

/* All of them, in strcmp's order. */
extern const hak_ngx_name hak_ngx_names[];
extern const size_t hak_ngx_names_count;

/* The entry of that name, or NULL. */
const hak_ngx_name *hak_ngx_name_find(const char *name);

/* ---- alloc.c ------------------------------------------------------ */

void *hak_ngx_malloc(size_t size);
void hak_ngx_free(void *p);
void *hak_ngx_calloc(size_t count, size_t size);
void *hak_ngx_realloc(void *p, size_t size);
void *hak_ngx_reallocarray(void *p, size_t count, size_t size);
int hak_ngx_posix_memalign(void **out, size_t alignment, size_t size);
void *hak_ngx_aligned_alloc(size_t alignment, size_t size);
void *hak_ngx_valloc(size_t size);
void *hak_ngx_pvalloc(size_t size);
size_t hak_ngx_malloc_usable_size(void *p);

/*
 * For objects that allocate from libc but may be given blocks of ours. For any
 * other block they cost a subtraction and a compare; nothing is counted.
 */
void hak_ngx_any_free(void *p);
void *hak_ngx_any_realloc(void *p, size_t size);
void *hak_ngx_any_reallocarray(void *p, size_t count, size_t size);

/* ---- callers.c: where libc would resize or free its caller's block -- */

ssize_t hak_ngx_any_getline(char **line, size_t *room, FILE *file);
ssize_t hak_ngx_any_getdelim(char **line, size_t *room, int end, FILE *file);
int hak_ngx_argz_add(char **argz, size_t *length, const char *text);
int hak_ngx_argz_add_sep(char **argz, size_t *length, const char *text,
                         int separator);
int hak_ngx_argz_append(char **argz, size_t *length, const char *more,
                        size_t more_length);
void hak_ngx_argz_delete(char **argz, size_t *length, char *entry);
int hak_ngx_argz_insert(char **argz, size_t *length, char *before,
                        const char *entry);
int hak_ngx_argz_replace(char **argz, size_t *length, const char *text,
                         const char *with, unsigned *count);
int hak_ngx_envz_add(char **envz, size_t *length, const char *name,
                     const char *value);
int hak_ngx_envz_merge(char **envz, size_t *length, const char *more,
                       size_t more_length, int override);
void hak_ngx_envz_remove(char **envz, size_t *length, const char *name);
void hak_ngx_regfree(regex_t *pattern);
const char *hak_ngx_re_compile_pattern(const char *text, size_t length,
                                       regex_t *pattern);
regoff_t hak_ngx_re_match(regex_t *pattern, const char *text, regoff_t length,
                          regoff_t start, struct re_registers *registers);
regoff_t hak_ngx_re_match_2(regex_t *pattern, const char *text1,
                            regoff_t length1, const char *text2,
                            regoff_t length2, regoff_t start,
                            struct re_registers *registers, regoff_t stop);
regoff_t hak_ngx_re_search(regex_t *pattern, const char *text, regoff_t length,
                           regoff_t start, regoff_t range,
                           struct re_registers *registers);
regoff_t hak_ngx_re_search_2(regex_t *pattern, const char *text1,
                             regoff_t length1, const char *text2,
                             regoff_t length2, regoff_t start, regoff_t range,
                             struct re_registers *registers, regoff_t stop);

/* ---- dl.c ---------------------------------------------------------- */

void *hak_ngx_dlopen(const char *file, int mode);
void *hak_ngx_dlmopen(Lmid_t space, const char *file, int mode);
void *hak_ngx_dlsym(void *handle, const char *name);
void *hak_ngx_dlvsym(void *handle, const char *name, const char *version);

/* ---- libc.c: what libc would allocate for its caller, or grow ------ */

char *hak_ngx_strdup(const char *s);
char *hak_ngx_strndup(const char *s, size_t most);
wchar_t *hak_ngx_wcsdup(const wchar_t *s);
ssize_t hak_ngx_getline(char **line, size_t *room, FILE *file);
ssize_t hak_ngx_getdelim(char **line, size_t *room, int end, FILE *file);
int hak_ngx_asprintf(char **out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
int hak_ngx_vasprintf(char **out, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
int hak_ngx_asprintf_chk(char **out, int flag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int hak_ngx_vasprintf_chk(char **out, int flag, const char *format,
                          va_list args) __attribute__((format(printf, 3, 0)));
char *hak_ngx_realpath(const char *path, char *resolved);
char *hak_ngx_realpath_chk(const char *path, char *resolved, size_t room);
char *hak_ngx_canonicalize_file_name(const char *path);
char *hak_ngx_getcwd(char *buffer, size_t size);
char *hak_ngx_getcwd_chk(char *buffer, size_t size, size_t room);
char *hak_ngx_get_current_dir_name(void);

#endif /* HAK_NGX_NAMES_H */
