/*
 * cgroup.c - control groups: found in /proc, read word by word.
 */
#include "os/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/os.h"

/*
 * In version 1 the largest whole number of pages means that there is no limit.
 */
#define ENDLESS ((size_t)1 << 60)

/* Memory files are read once this many percent of a limit are in use. */
#define WORTH_A_LOOK 80

/* The most levels of groups that are read. */
#define LEVELS_MOST 32

/* ---- a file, word by word ------------------------------------------------- */

struct reader {
    int fd;
    char buffer[256];
    size_t at, length;
};

/* What ended a word. */
enum cgroup_end { END_SPACE, END_LINE, END_FILE };

static bool cgroup_reader_open(struct reader *reader, const char *path)
{
    int fd;

    do {
        fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    *reader = (struct reader){.fd = fd};
    return fd >= 0;
}

static void cgroup_reader_close(struct reader *reader)
{
    syscall(SYS_close, reader->fd);
}

/* The next character, or -1. */
static int cgroup_reader_next(struct reader *reader)
{
    long n;

    if (reader->at == reader->length) {
        do {
            n = haki_os_read(reader->fd, reader->buffer,
                             sizeof(reader->buffer));
        } while (n < 0 && errno == EINTR);
        if (n <= 0) {
            return -1;
        }
        reader->at = 0;
        reader->length = (size_t)n;
    }
    return (unsigned char)reader->buffer[reader->at++];
}

/* The next word, cut off if it is too long for its place, and what ended it. */
static enum cgroup_end cgroup_reader_word(struct reader *reader, char *word,
                                          size_t size)
{
    size_t n = 0;
    int c;

    while ((c = cgroup_reader_next(reader)) != -1 && c != ' ' && c != '\n') {
        if (n + 1 < size) {
            word[n++] = (char)c;
        }
    }
    word[n] = '\0';
    return c == -1 ? END_FILE : c == '\n' ? END_LINE : END_SPACE;
}

/* Skips the rest of a line, unless `end` says that it has ended. */
static enum cgroup_end cgroup_reader_skip_line(struct reader *reader,
                                               enum cgroup_end end)
{
    int c = ' ';

    if (end != END_SPACE) {
        return end;
    }
    while (c != '\n' && c != -1) {
        c = cgroup_reader_next(reader);
    }
    return c == '\n' ? END_LINE : END_FILE;
}

/* ---- numbers ---------------------------------------------------------------- */

/* Decimal digits and nothing else; too large a number becomes SIZE_MAX. */
static bool cgroup_parse_number(const char *text, size_t *value)
{
    size_t n = 0;

    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        if (__builtin_mul_overflow(n, (size_t)10, &n) ||
            __builtin_add_overflow(n, (size_t)(*text - '0'), &n)) {
            n = SIZE_MAX; /* and stays: times ten it overflows again */
        }
    }
    *value = n;
    return true;
}

/* DIR/NAME. False: too long. */
static bool cgroup_join(char *path, const char *dir, const char *name)
{
    size_t length = strlen(dir), more = strlen(name);

    if (length + 1 + more >= HAK_CGROUP_PATH) {
        return false;
    }
    memcpy(path, dir, length);
    path[length] = '/';
    memcpy(path + length + 1, name, more + 1);
    return true;
}

/* Removes the last part of a path. False: nothing is left. */
static bool cgroup_go_up(char *path)
{
    char *slash = strrchr(path, '/');

    if (slash == NULL || slash == path) {
        return false;
    }
    *slash = '\0';
    return true;
}

/* A file of one word: whether it is there, and what it says. */
static bool cgroup_read_word(const char *dir, const char *name, char *word,
                             size_t size)
{
    char path[HAK_CGROUP_PATH];
    struct reader reader;

    if (!cgroup_join(path, dir, name) || !cgroup_reader_open(&reader, path)) {
        return false;
    }
    cgroup_reader_word(&reader, word, size);
    cgroup_reader_close(&reader);
    return true;
}

/* ---- which group ------------------------------------------------------------ */

static const char *cgroup_used_file(enum hak_cgroup_kind kind)
{
    return kind == HAK_CGROUP_V2 ? "memory.current" : "memory.usage_in_bytes";
}

static const char *cgroup_max_file(enum hak_cgroup_kind kind)
{
    return kind == HAK_CGROUP_V2 ? "memory.max" : "memory.limit_in_bytes";
}

static bool cgroup_has_file(const char *dir, const char *name)
{
    char word[2];

    return cgroup_read_word(dir, name, word, sizeof(word));
}

/* Goes up from `dir` to the first group that has limits. */
static void cgroup_settle(struct hak_cgroup *group)
{
    do {
        for (int kind = HAK_CGROUP_V2; kind >= HAK_CGROUP_V1; kind--) {
            if (cgroup_has_file(group->dir,
                                cgroup_max_file((enum hak_cgroup_kind)kind))) {
                group->kind = (enum hak_cgroup_kind)kind;
                return;
            }
        }
    } while (cgroup_go_up(group->dir));
    group->kind = HAK_CGROUP_NONE;
}

/* Whether `list`, words separated by commas, contains this word. */
static bool cgroup_lists(const char *list, const char *word)
{
    size_t length = strlen(word);

    for (; *list != '\0'; list += strcspn(list, ",")) {
        list += *list == ',';
        if (strncmp(list, word, length) == 0 &&
            (list[length] == ',' || list[length] == '\0')) {
            return true;
        }
    }
    return false;
}

/*
 * The path of a line "N:CONTROLLERS:PATH" of /proc/self/cgroup, or NULL if it
 * belongs neither to version 1's memory hierarchy nor to version 2's.
 */
static char *cgroup_path_in_line(char *line, enum hak_cgroup_kind kind)
{
    char *list = strchr(line, ':');
    char *path = list != NULL ? strchr(++list, ':') : NULL;

    if (path == NULL) {
        return NULL;
    }
    *path++ = '\0';
    return (kind == HAK_CGROUP_V2 ? *list == '\0'
                                  : cgroup_lists(list, "memory"))
               ? path
               : NULL;
}

/* The path of our group inside its hierarchy; a name may have spaces. */
static bool cgroup_find_path(char *out, enum hak_cgroup_kind kind)
{
    char line[HAK_CGROUP_PATH];
    struct reader reader;
    enum cgroup_end end = END_LINE;
    bool found = false;

    if (!cgroup_reader_open(&reader, "/proc/self/cgroup")) {
        return false;
    }
    while (!found && end != END_FILE) {
        const char *path;
        size_t n = 0;

        do {
            end = cgroup_reader_word(&reader, line + n, sizeof(line) - n);
            n += strlen(line + n);
            if (end == END_SPACE && n + 2 < sizeof(line)) {
                line[n++] = ' ';
            }
        } while (end == END_SPACE);
        path = n + 1 < sizeof(line) ? cgroup_path_in_line(line, kind) : NULL;
        if (path != NULL) {
            memmove(out, path, strlen(path) + 1);
            found = true;
        }
    }
    cgroup_reader_close(&reader);
    return found;
}

/* Decodes escapes such as "\040", a space. */
static void cgroup_unescape(char *text)
{
    char *to = text;

    for (; *text != '\0'; text++) {
        if (text[0] == '\\' && text[1] != '\0' && text[2] != '\0' &&
            text[3] != '\0') {
            *to++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 +
                           (text[3] - '0'));
            text += 3;
        } else {
            *to++ = *text;
        }
    }
    *to = '\0';
}

/* A mount of the hierarchy: which part of it is visible, and where. */
struct mount {
    char root[HAK_CGROUP_PATH];
    char point[HAK_CGROUP_PATH];
};

/* Reads a line of /proc/self/mountinfo; true if it is the hierarchy's. */
static bool cgroup_read_mount(struct reader *reader, struct mount *mount,
                              enum hak_cgroup_kind kind, enum cgroup_end *end)
{
    char word[64] = "";
    bool right;

    for (int i = 0; i < 3; i++) { /* ids, device */
        *end = cgroup_reader_word(reader, word, sizeof(word));
    }
    *end = cgroup_reader_word(reader, mount->root, sizeof(mount->root));
    *end = cgroup_reader_word(reader, mount->point, sizeof(mount->point));
    while (*end == END_SPACE && strcmp(word, "-") != 0) {
        *end = cgroup_reader_word(reader, word, sizeof(word));
    }
    if (*end == END_SPACE) {
        *end = cgroup_reader_word(reader, word, sizeof(word));
    }
    right = strcmp(word, kind == HAK_CGROUP_V2 ? "cgroup2" : "cgroup") == 0;
    if (right && kind == HAK_CGROUP_V1) {
        for (int i = 0; i < 2 && *end == END_SPACE; i++) { /* source, options */
            *end = cgroup_reader_word(reader, word, sizeof(word));
        }
        right = cgroup_lists(word, "memory");
    }
    *end = cgroup_reader_skip_line(reader, *end);
    cgroup_unescape(mount->root);
    cgroup_unescape(mount->point);
    return right;
}

static bool cgroup_find_mount(struct mount *mount, enum hak_cgroup_kind kind)
{
    struct reader reader;
    enum cgroup_end end = END_LINE;
    bool found = false;

    if (!cgroup_reader_open(&reader, "/proc/self/mountinfo")) {
        return false;
    }
    while (!found && end != END_FILE) {
        found = cgroup_read_mount(&reader, mount, kind, &end);
    }
    cgroup_reader_close(&reader);
    return found;
}

/*
 * The directory of our group: the mount point, followed by the part of the path
 * below the mount's root. A path that does not begin with that root comes from
 * another namespace; then the mount point is the best that can be seen.
 */
static bool cgroup_find_dir(struct hak_cgroup *group, enum hak_cgroup_kind kind)
{
    struct mount mount;
    char path[HAK_CGROUP_PATH];
    const char *below;
    size_t root;

    if (!cgroup_find_path(path, kind) || !cgroup_find_mount(&mount, kind)) {
        return false;
    }
    root = strcmp(mount.root, "/") == 0 ? 0 : strlen(mount.root);
    memcpy(group->dir, mount.point, sizeof(group->dir));
    if (strncmp(path, mount.root, root) == 0 && path[root] == '/') {
        below = path + root + 1;
        if (*below != '\0' && strncmp(below, "..", 2) != 0 &&
            !cgroup_join(group->dir, mount.point, below)) {
            return false;
        }
    }
    return true;
}

HAK_COLD void haki_cgroup_find(struct hak_cgroup *group, const char *fake)
{
    int saved = errno;

    group->kind = HAK_CGROUP_NONE;
    if (fake != NULL) {
        if (strlen(fake) < sizeof(group->dir)) {
            memcpy(group->dir, fake, strlen(fake) + 1);
            cgroup_settle(group);
        }
    } else {
        for (int kind = HAK_CGROUP_V2;
             kind >= HAK_CGROUP_V1 && group->kind == HAK_CGROUP_NONE; kind--) {
            if (cgroup_find_dir(group, (enum hak_cgroup_kind)kind)) {
                cgroup_settle(group);
            }
        }
    }
    errno = saved;
}

/* ---- what it says ----------------------------------------------------------- */

#define FAULT_TEXT sizeof(((struct hak_cgroup_state *)NULL)->fault_text)

/* Only the first fault is reported. */
static void cgroup_note(struct hak_cgroup_state *state,
                        enum hak_cgroup_fault fault, const char *dir,
                        const char *name)
{
    if (state->fault == HAK_CGROUP_FINE) {
        state->fault = fault;
        cgroup_join(state->fault_file, dir, name);
    }
}

/* Anything but a number is noted as a fault. */
static bool cgroup_parse_or_note(struct hak_cgroup_state *state,
                                 const char *dir, const char *name,
                                 const char *word, size_t *value)
{
    if (cgroup_parse_number(word, value)) {
        return true;
    }
    if (state->fault == HAK_CGROUP_FINE) {
        memcpy(state->fault_text, word, strlen(word) + 1);
    }
    cgroup_note(state, HAK_CGROUP_GARBLED, dir, name);
    return false;
}

/* Reads a limit, SIZE_MAX if there is none. False: there is no such file. */
static bool cgroup_read_limit(struct hak_cgroup_state *state, const char *dir,
                              const char *name, size_t *limit)
{
    char word[FAULT_TEXT];

    *limit = SIZE_MAX;
    if (!cgroup_read_word(dir, name, word, sizeof(word))) {
        return false;
    }
    if (strcmp(word, "max") == 0) {
        return true;
    }
    if (!cgroup_parse_or_note(state, dir, name, word, limit) ||
        *limit >= ENDLESS) {
        *limit = SIZE_MAX;
    }
    return true;
}

/* Reads what a group uses. False: its file is missing or garbled. */
static bool cgroup_read_used(struct hak_cgroup_state *state, const char *dir,
                             enum hak_cgroup_kind kind, size_t *used)
{
    char word[FAULT_TEXT];

    return cgroup_read_word(dir, cgroup_used_file(kind), word, sizeof(word)) &&
           cgroup_parse_or_note(state, dir, cgroup_used_file(kind), word, used);
}

/* File pages that the kernel can drop when it needs room. */
static size_t cgroup_read_inactive(const char *dir, enum hak_cgroup_kind kind)
{
    const char *wanted =
        kind == HAK_CGROUP_V2 ? "inactive_file" : "total_inactive_file";
    char path[HAK_CGROUP_PATH], word[32];
    struct reader reader;
    enum cgroup_end end = END_LINE;
    size_t bytes = 0;

    if (!cgroup_join(path, dir, "memory.stat") ||
        !cgroup_reader_open(&reader, path)) {
        return 0;
    }
    while (end != END_FILE) {
        end = cgroup_reader_word(&reader, word, sizeof(word));
        if (end == END_SPACE && strcmp(word, wanted) == 0) {
            cgroup_reader_word(&reader, word, sizeof(word));
            bytes = cgroup_parse_number(word, &bytes) ? bytes : 0;
            break;
        }
        end = cgroup_reader_skip_line(&reader, end);
    }
    cgroup_reader_close(&reader);
    return bytes;
}

/* Reads one group. False: neither it nor any group above it has limits. */
static bool cgroup_read_level(struct hak_cgroup_state *state, const char *dir,
                              enum hak_cgroup_kind kind)
{
    size_t max, high = SIZE_MAX, least, used;

    if (!cgroup_read_limit(state, dir, cgroup_max_file(kind), &max)) {
        return false;
    }
    if (kind == HAK_CGROUP_V2) {
        cgroup_read_limit(state, dir, "memory.high", &high);
    }
    state->limit = haki_min(state->limit, max);
    least = haki_min(max, high);
    if (least == SIZE_MAX || !cgroup_read_used(state, dir, kind, &used)) {
        return true;
    }
    if (haki_percent(used, least) >= WORTH_A_LOOK) {
        used -= haki_min(cgroup_read_inactive(dir, kind), used);
    }
    if (used > max) {
        if (state->fault == HAK_CGROUP_FINE) {
            state->fault_limit = max;
            state->fault_used = used;
        }
        cgroup_note(state, HAK_CGROUP_OVER, dir, cgroup_max_file(kind));
    }
    state->room = haki_min(state->room, least - haki_min(used, least));
    state->full = (unsigned)haki_max(state->full, haki_percent(used, least));
    return true;
}

/* "some avg10=12.34 ...": 12. 0 where there is no such file. */
static unsigned cgroup_read_pressure(const char *dir)
{
    char path[HAK_CGROUP_PATH], word[32] = "";
    struct reader reader;
    size_t value = 0;

    if (!cgroup_join(path, dir, "memory.pressure") ||
        !cgroup_reader_open(&reader, path)) {
        return 0;
    }
    if (cgroup_reader_word(&reader, word, sizeof(word)) == END_SPACE &&
        strcmp(word, "some") == 0) {
        cgroup_reader_word(&reader, word, sizeof(word));
    }
    cgroup_reader_close(&reader);
    if (strncmp(word, "avg10=", 6) == 0) {
        word[6 + strcspn(word + 6, ".")] = '\0';
        cgroup_parse_number(word + 6, &value);
    }
    return (unsigned)haki_min(value, 100);
}

HAK_COLD bool haki_cgroup_read(const struct hak_cgroup *group,
                               struct hak_cgroup_state *state)
{
    char dir[HAK_CGROUP_PATH];
    int saved = errno, levels = 0;

    *state = (struct hak_cgroup_state){.limit = SIZE_MAX, .room = SIZE_MAX};
    if (group->kind != HAK_CGROUP_NONE) {
        memcpy(dir, group->dir, sizeof(dir));
        while (levels < LEVELS_MOST &&
               cgroup_read_level(state, dir, group->kind)) {
            levels++;
            if (!cgroup_go_up(dir)) {
                break;
            }
        }
        state->pressure = cgroup_read_pressure(group->dir);
    }
    errno = saved;
    return levels > 0;
}

static unsigned cgroup_rlimit_full(int resource, size_t used)
{
    struct rlimit limit;

    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return 0;
    }
    return haki_percent(used, (size_t)limit.rlim_cur);
}

/* The sixth word of statm counts stacks too, which RLIMIT_DATA does not. */
HAK_COLD unsigned haki_cgroup_rlimits(void)
{
    size_t pages[6] = {0};
    struct reader reader;
    char word[32];
    int saved = errno;

    if (haki_os_address_limit() == SIZE_MAX) {
        return 0;
    }
    if (cgroup_reader_open(&reader, "/proc/self/statm")) {
        for (int i = 0; i < 6; i++) {
            cgroup_reader_word(&reader, word, sizeof(word));
            cgroup_parse_number(word, &pages[i]);
        }
        cgroup_reader_close(&reader);
    }
    errno = saved;
    return (unsigned)
        haki_max(cgroup_rlimit_full(RLIMIT_AS, pages[0] * HAK_PAGE),
                 cgroup_rlimit_full(RLIMIT_DATA, pages[5] * HAK_PAGE));
}
