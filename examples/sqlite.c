/*
 * sqlite.c - SQLite on an explicit heap, with exact sizes and a limit.
 *
 * SQLite calls one table of functions for the whole process, without a user
 * pointer, and holds a mutex of its own meanwhile as long as its statistics
 * (SQLITE_CONFIG_MEMSTATUS) are on: so one explicit heap serves all threads.
 */
#include "example.h"

#include <sqlite3.h>

static hak_heap *heap;

static void *give(int size)
{
    return hak_heap_malloc(heap, (size_t)size);
}

static void take(void *p)
{
    hak_heap_free(heap, p);
}

static void *resize(void *p, int size)
{
    return hak_heap_realloc(heap, p, (size_t)size);
}

/* The exact size of the block: SQLite uses all of it. */
static int size_of(void *p)
{
    return (int)hak_heap_usable_size(heap, p);
}

/* The size that a block for `size` bytes will have. */
static int round_up(int size)
{
    return (int)hak_heap_good_size(heap, (size_t)size);
}

static int begin(void *arg)
{
    (void)arg;
    return SQLITE_OK;
}

static void end(void *arg)
{
    (void)arg;
}

/* Before the first call of SQLite, or after sqlite3_shutdown. */
static void use_hakmem(size_t limit)
{
    static sqlite3_mem_methods methods = {give,     take,  resize, size_of,
                                          round_up, begin, end,    NULL};

    heap = example_heap("sqlite", limit);
    NEED(sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 1) == SQLITE_OK);
    NEED(sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) == SQLITE_OK);
}

/*
 * A table in memory that grows, is queried and shrinks; returns SQLite's last
 * result.
 */
static int work(sqlite3 *db)
{
    static const char *const steps[] = {
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c BLOB)",
        "CREATE INDEX i ON t(b)",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n "
        "WHERE x < 20000) INSERT INTO t SELECT x, 'key ' || (x * 7919 % "
        "20011), "
        "zeroblob(x % 300) FROM n",
        "SELECT count(*), group_concat(substr(b, 1, 5)) FROM t GROUP BY a % 50",
        "UPDATE t SET b = b || b WHERE a % 3 = 0",
        "SELECT t.a FROM t JOIN t AS u ON t.b = u.b ORDER BY t.c, t.b",
        "DELETE FROM t WHERE a % 2 = 0",
    };
    int status = SQLITE_OK;

    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        status = sqlite3_exec(db, steps[i], NULL, NULL, NULL);
        if (status != SQLITE_OK) {
            break;
        }
    }
    for (int i = 0; status == SQLITE_OK && i < 3000; i++) {
        sqlite3_stmt *ask = NULL;

        NEED(sqlite3_prepare_v2(db, "SELECT c FROM t WHERE a = ?2 OR b = ?1",
                                -1, &ask, NULL) == SQLITE_OK);
        sqlite3_bind_int(ask, 2, i);
        while (sqlite3_step(ask) == SQLITE_ROW) {
        }
        sqlite3_finalize(ask);
    }
    return status;
}

int main(int argc, char **argv)
{
    enum mode mode = example_mode(argc, argv);
    sqlite3 *db = NULL;
    int status;

    if (mode != LIBC) {
        use_hakmem(mode == LIMIT ? 2 << 20 : 0);
    }
    NEED(sqlite3_open(":memory:", &db) == SQLITE_OK);
    status = work(db);
    NEED(status == (mode == LIMIT ? SQLITE_NOMEM : SQLITE_OK));
    if (mode == LIMIT) { /* more, and it goes on where it was */
        hak_heap_set_limit(heap, 64 << 20);
        NEED(sqlite3_exec(db, "DROP TABLE t", NULL, NULL, NULL) == SQLITE_OK);
        NEED(work(db) == SQLITE_OK);
    }
    NEED(sqlite3_close(db) == SQLITE_OK && sqlite3_shutdown() == SQLITE_OK);
    if (mode != LIBC) {
        example_report(heap);
        NEED(hak_heap_live(heap) == 0);
        hak_heap_delete(heap);
    }
    return 0;
}
