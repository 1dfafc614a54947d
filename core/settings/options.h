/*
 * options.h - settings from the environment, read once.
 *
 * The table is options.def. A value that can't be read or is out of
 * bounds is reported in one line and the default is used.
 *
 * Any thread may ask at any time, also in a signal handler or a forked child:
 * nothing is allocated and nobody waits. A preloaded library may have to serve
 * requests before the C library has set up the environment; until then an
 * option has its default, and the next call looks again.
 */
#ifndef HAK_OPTIONS_H
#define HAK_OPTIONS_H

#include "base/base.h"

#define HAK_RANGE_DEFAULT (1024 * HAK_GIB)

/* Values of HAK_OPT_huge_pages, in the order of its words. */
enum hak_thp { HAK_THP_AUTO, HAK_THP_ALWAYS, HAK_THP_NEVER };

/* Values of HAK_OPT_show_stats, likewise. */
enum hak_show { HAK_SHOW_NOT, HAK_SHOW_TABLE, HAK_SHOW_JSON, HAK_SHOW_PROM };

/*
 * A SHARE's value is bytes, or HAK_PERCENT and a percentage of something that
 * the reader of the option knows.
 */
#define HAK_PERCENT ((size_t)1 << 63)

/* Values of HAK_OPT_deepbind, likewise. */
enum hak_deepbind { HAK_DEEPBIND_DROP, HAK_DEEPBIND_KEEP };

enum hak_option {
#define HAK_OPTION(type, name, ...) HAK_OPT_##name,
#include "settings/options.def"
#undef HAK_OPTION
    HAK_OPTIONS
};

/* The value of an option. The first call reads the environment. */
size_t haki_option(enum hak_option option);

/*
 * The text of HAK_OPT_cgroup: an absolute path shorter than HAK_OPTION_PATH.
 * haki_option says only whether that option is set (1) or not (0).
 */
const char *haki_option_cgroup(void);
#define HAK_OPTION_PATH 400

/* The same of HAK_OPT_profile: the path of a file, or NULL. */
const char *haki_option_profile(void);

/*
 * Whether the environment is set up, so that haki_option's answers are final.
 */
bool haki_options_ready(void);

/* ---- a table of an adapter's own ---------------------------------------- */

enum hak_option_type {
    HAK_OPTION_BOOL,
    HAK_OPTION_INT,
    HAK_OPTION_SIZE,
    HAK_OPTION_SHARE,
    HAK_OPTION_WORD,
    HAK_OPTION_DIR,
    HAK_OPTION_FILE
};

struct hak_option_row {
    enum hak_option_type type;
    const char *env;
    size_t initial, least, most;
    const char *words; /* WORD: the valid ones; INT: its unit; SIZE: what the
                        * default is, in words, or "" */
};

/* HAK_OPTION, as a row of a table. */
#define HAK_OPTION_ROW(type, name, env, initial, least, most, words, help)     \
    {HAK_OPTION_##type, env, initial, least, most, words},

/* How far a table has been read. */
enum { HAK_OPTIONS_UNREAD, HAK_OPTIONS_READING, HAK_OPTIONS_READ };

struct hak_options {
    const struct hak_option_row *rows;
    size_t count;
    size_t *values; /* `count` of them; set once, when the table is read */
    _Atomic(unsigned) state;
};

/* Defines `name`, the struct hak_options of an array of rows, in a .c file. */
#define HAK_OPTIONS_TABLE(name, rows)                                          \
    static size_t name##_values[sizeof(rows) / sizeof((rows)[0])];             \
    static struct hak_options name = {rows, sizeof(rows) / sizeof((rows)[0]),  \
                                      name##_values, HAK_OPTIONS_UNREAD}

/* The value of row `which`, as haki_option. */
size_t haki_options_get(struct hak_options *options, size_t which);

#ifdef HAK_TESTING
/* Tests only: reads the environment again. */
void haki_option_test_reload(void);
#endif

#endif /* HAK_OPTIONS_H */
