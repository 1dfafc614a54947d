/*
 * libc.c - what libc allocates for its caller, or grows for it.
 *
 * getline and getdelim must not get a block of ours, because libc would resize
 * it. The others would do no harm, since a block of libc's can be freed through
 * us, but patched objects should have blocks of ours. libc does the work, and
 * its result moves into a block of ours.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "names.h"

/* ---- copies ---------------------------------------------------------------- */

static void *copy(const void *from, size_t size)
{
    void *p = hak_ngx_malloc(size);

    return p != NULL ? memcpy(p, from, size) : NULL;
}

char *hak_ngx_strdup(const char *s)
{
    return copy(s, strlen(s) + 1);
}

char *hak_ngx_strndup(const char *s, size_t most)
{
    size_t length = strnlen(s, most);
    char *p = hak_ngx_malloc(length + 1);

    if (p != NULL) {
        memcpy(p, s, length);
        p[length] = '\0';
    }
    return p;
}

wchar_t *hak_ngx_wcsdup(const wchar_t *s)
{
    return copy(s, (wcslen(s) + 1) * sizeof(wchar_t));
}

/* Copies libc's block to one of ours and frees it. NULL for NULL. */
static char *move_in(char *from, size_t size)
{
    char *p = from != NULL ? copy(from, size) : NULL;

    free(from); /* keeps errno */
    return p;
}

static char *move_in_string(char *from)
{
    return move_in(from, from != NULL ? strlen(from) + 1 : 0);
}

/* ---- lines ----------------------------------------------------------------- */

/* Copies a line of libc's into the caller's block, which grows if necessary. */
static ssize_t hand_over(const char *from, size_t length, char **line,
                         size_t *room)
{
    if (*line == NULL || *room < length + 1) {
        char *p = hak_ngx_realloc(*line, length + 1);

        if (p == NULL) {
            return -1;
        }
        *line = p;
        *room = length + 1;
    }
    memcpy(*line, from, length + 1);
    return (ssize_t)length;
}

ssize_t hak_ngx_getdelim(char **line, size_t *room, int end, FILE *file)
{
    char *from = NULL;
    size_t from_room = 0;
    ssize_t length;

    if (line == NULL || room == NULL) {
        return getdelim(line, room, end, file);
    }
    length = getdelim(&from, &from_room, end, file);
    if (length >= 0) {
        length = hand_over(from, (size_t)length, line, room);
    }
    free(from);
    return length;
}

ssize_t hak_ngx_getline(char **line, size_t *room, FILE *file)
{
    return hak_ngx_getdelim(line, room, '\n', file);
}

/* ---- asprintf -------------------------------------------------------------- */

/* Turns what libc's function returned into our result. */
static int printed(int length, char **out)
{
    if (length < 0) {
        return length;
    }
    *out = move_in(*out, (size_t)length + 1);
    return *out != NULL ? length : -1;
}

int hak_ngx_vasprintf(char **out, const char *format, va_list args)
{
    return printed(vasprintf(out, format, args), out);
}

int hak_ngx_asprintf(char **out, const char *format, ...)
{
    va_list args;
    int length;

    va_start(args, format);
    length = hak_ngx_vasprintf(out, format, args);
    va_end(args);
    return length;
}

/* Fortified programs call this; the flag forbids %n in writable memory. */
int __vasprintf_chk(char **out, int flag, const char *format, va_list args);

int hak_ngx_vasprintf_chk(char **out, int flag, const char *format,
                          va_list args)
{
    return printed(__vasprintf_chk(out, flag, format, args), out);
}

int hak_ngx_asprintf_chk(char **out, int flag, const char *format, ...)
{
    va_list args;
    int length;

    va_start(args, format);
    length = hak_ngx_vasprintf_chk(out, flag, format, args);
    va_end(args);
    return length;
}

/* ---- paths ----------------------------------------------------------------- */

char *__realpath_chk(const char *path, char *resolved, size_t room);
char *__getcwd_chk(char *buffer, size_t size, size_t room);

char *hak_ngx_realpath(const char *path, char *resolved)
{
    return resolved != NULL ? realpath(path, resolved)
                            : move_in_string(realpath(path, NULL));
}

char *hak_ngx_realpath_chk(const char *path, char *resolved, size_t room)
{
    return resolved != NULL ? __realpath_chk(path, resolved, room)
                            : hak_ngx_realpath(path, NULL);
}

char *hak_ngx_canonicalize_file_name(const char *path)
{
    return hak_ngx_realpath(path, NULL);
}

/* If a size is given the block has that size. */
char *hak_ngx_getcwd(char *buffer, size_t size)
{
    char *from;

    if (buffer != NULL) {
        return getcwd(buffer, size);
    }
    from = getcwd(NULL, size);
    return size != 0 ? move_in(from, size) : move_in_string(from);
}

char *hak_ngx_getcwd_chk(char *buffer, size_t size, size_t room)
{
    return buffer != NULL ? __getcwd_chk(buffer, size, room)
                          : hak_ngx_getcwd(NULL, size);
}

char *hak_ngx_get_current_dir_name(void)
{
    return move_in_string(get_current_dir_name());
}
