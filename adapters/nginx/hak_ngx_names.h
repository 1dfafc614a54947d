/*
 * hak_ngx_names.h - the functions that patched objects call, and the table
 * that hak_ngx_slots.c finds them in.
 *
 * Each does what the one does whose name follows hak_ngx_, glibc's where the
 * standards leave a choice. C++'s are in hak_ngx_new.h.
 */
#ifndef HAK_NGX_NAMES_H
#define HAK_NGX_NAMES_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>
#include <wchar.h>

typedef void hak_ngx_function(void);

/*
 * A name that objects import, and what its slot is to point at; NULL: libc
 * would resize or free a block of ours, so who imports it can't be patched.
 */
typedef struct hak_ngx_name {
    const char *name;
    hak_ngx_function *ours;
} hak_ngx_name;

/* All of them, in strcmp's order. */
extern const hak_ngx_name hak_ngx_names[];
extern const size_t hak_ngx_names_count;

/* The entry of that name, or NULL. */
const hak_ngx_name *hak_ngx_name_find(const char *name);

/* ---- hak_ngx_alloc.c ------------------------------------------------------ */

void *hak_ngx_malloc(size_t size);
void hak_ngx_free(void *p);
void *hak_ngx_calloc(size_t count, size_t size);
void *hak_ngx_realloc(void *p, size_t size);
/* realloc for who allocates from libc, but may be handed a block of ours. */
void *hak_ngx_guest_realloc(void *p, size_t size);
void *hak_ngx_reallocarray(void *p, size_t count, size_t size);
int hak_ngx_posix_memalign(void **out, size_t alignment, size_t size);
void *hak_ngx_aligned_alloc(size_t alignment, size_t size);
void *hak_ngx_valloc(size_t size);
void *hak_ngx_pvalloc(size_t size);
size_t hak_ngx_malloc_usable_size(void *p);

/* ---- hak_ngx_libc.c: what libc would allocate for its caller, or grow ------ */

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
