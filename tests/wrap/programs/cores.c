/*
 * cores.c - a program with a core of its own: it embeds Lua and is linked with
 * libhakmem_lua.a. Run alone and with libhakmem.so preloaded, whose core then
 * serves malloc: blocks go to and fro between the two. cores MODE...
 *
 *   threads      states of every kind, closed by other threads than their own
 *   fork         states of every kind go on in children, and end there
 *   blocks       blocks of malloc's are given to hak_lua_alloc, to be freed and
 *                resized
 *   narrow       what follows has 40 GB of addresses, as on a small machine
 *   modules A B  states of every kind load two copies of the Lua module, which
 *                have cores as well
 *
 * Ends with "well".
 */
#include <hakmem_lua.h>
#include <lauxlib.h>
#include <lualib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "program.h"

/* ---- states ----------------------------------------------------------------- */

/* Whose memory a state has. */
enum kind { OWN_HEAP, THREADS_HEAP, MALLOC, SWITCHED, KINDS };

/* Objects of all sizes; what it returns tells whether they are whole. */
static const char work[] =
    "local kept, sum = kept or {}, 0\n"
    "for i = 1, 400 do\n"
    "    kept[i % 60] = string.rep(string.char(65 + i % 26), i * i % 9000)\n"
    "    if i % 100 == 0 then kept[-i] = string.rep('L', 700 * i) end\n"
    "    kept[i % 50 + 100] = {i, i, i, {x = i}, function() return i end}\n"
    "end\n"
    "for i = 1, 400 do\n"
    "    if i > 340 then\n"
    "        local s = kept[i % 60]\n"
    "        assert(#s == i * i % 9000)\n"
    "        assert(s == string.rep(string.char(65 + i % 26), #s))\n"
    "    end\n"
    "    if i > 350 then\n"
    "        local t = kept[i % 50 + 100]\n"
    "        sum = sum + t[1] + t[3] + t[4].x + t[5]()\n"
    "    end\n"
    "end\n"
    "_ENV.kept = kept\n"
    "return sum\n";

static void run(lua_State *L, const char *code)
{
    if (luaL_dostring(L, code) != LUA_OK) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        _exit(1);
    }
}

static void check(lua_State *L)
{
    run(L, work);
    NEED(lua_tointeger(L, -1) == 4 * (351 + 400) * 50 / 2);
    lua_settop(L, 0);
}

static lua_State *make(enum kind kind)
{
    hak_lua_config config = {.size = sizeof(config), .name = "crossing"};
    lua_State *L;

    switch (kind) {
    case OWN_HEAP: L = hak_lua_newstate(&config); break;
    case THREADS_HEAP: L = lua_newstate(hak_lua_alloc, NULL); break;
    default: L = luaL_newstate(); break;
    }
    NEED(L != NULL);
    luaL_openlibs(L);
    check(L);
    if (kind == SWITCHED) {
        NEED(hak_lua_switch(L, &config) != NULL);
        check(L);
    }
    return L;
}

static void end(lua_State *L)
{
    check(L);
    hak_lua_close(L);
}

/* ---- threads ---------------------------------------------------------------- */

enum { THREADS = 3, ROUNDS = 8, PLACES = 5 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static lua_State *places[PLACES];

static lua_State *exchange(unsigned place, lua_State *L)
{
    lua_State *old;

    pthread_mutex_lock(&lock);
    old = places[place];
    places[place] = L;
    pthread_mutex_unlock(&lock);
    return old;
}

static void *thread(void *arg)
{
    unsigned first = *(unsigned *)arg;

    for (unsigned i = first; i < first + ROUNDS; i++) {
        lua_State *L = exchange(i % PLACES, make(i % KINDS));

        if (L != NULL && i % 3 == 0) {
            check(L);
            L = exchange((i + 2) % PLACES, L);
        }
        if (L != NULL) {
            end(L);
        }
    }
    return NULL;
}

static void threads(void)
{
    pthread_t ids[THREADS];
    unsigned firsts[THREADS];

    for (int turn = 0; turn < 2; turn++) {
        for (unsigned i = 0; i < THREADS; i++) {
            firsts[i] = i * 5;
            NEED(pthread_create(&ids[i], NULL, thread, &firsts[i]) == 0);
        }
        for (int i = 0; i < THREADS; i++) {
            NEED(pthread_join(ids[i], NULL) == 0);
        }
    }
    for (unsigned i = 0; i < PLACES; i++) {
        lua_State *L = exchange(i, NULL);

        if (L != NULL) {
            end(L);
        }
    }
}

/* ---- forks ------------------------------------------------------------------ */

static void *closer(void *arg)
{
    end(arg);
    return NULL;
}

/* How many heaps the program's own core has. */
static unsigned long heaps(void)
{
    hak_stats_t stats = {.size = sizeof(stats)};

    NEED(hak_stats(&stats) == 0);
    return stats.heaps;
}

static void end_all(lua_State **states)
{
    pthread_t id;

    for (int i = 0; i < KINDS; i++) {
        check(states[i]);
        NEED(pthread_create(&id, NULL, closer, states[i]) == 0);
        NEED(pthread_join(id, NULL) == 0);
    }
}

/* A child has children of its own, `depth` times. */
static void forks(int depth)
{
    lua_State *states[KINDS];

    for (unsigned i = 0; i < KINDS; i++) {
        states[i] = make(i);
    }
    for (int status = 0; status < 2; status++) {
        pid_t pid = fork();
        int said;

        NEED(pid >= 0);
        if (pid == 0) {
            if (depth > 0) {
                forks(depth - 1);
            }
            end_all(states);
            exit(status);
        }
        NEED(waitpid(pid, &said, 0) == pid);
        NEED(WIFEXITED(said) && WEXITSTATUS(said) == status);
    }
    end_all(states);
}

/* ---- blocks ------------------------------------------------------------------ */

static size_t next_size(size_t size)
{
    return size * 3 + 1;
}

/* Whatever is handed over, and whatever becomes of it, its contents stay. */
static void to_and_fro(void)
{
    for (size_t size = 1; size < 8000000; size = next_size(size)) {
        size_t more = next_size(size), less = size / 2 + 1;
        void *p = malloc(hide(size)), *q = malloc(hide(size));
        void *r = malloc(hide(size));

        fill(p, size, 1);
        fill(q, size, 2);
        fill(r, size, 3);
        p = hak_lua_alloc(NULL, p, size, more);
        NEED(p != NULL && filled(p, size, 1));
        fill(p, more, 4);
        q = hak_lua_alloc(NULL, q, size, less);
        NEED(q != NULL && filled_of(q, less, size, 2));
        NEED(filled(r, size, 3));
        NEED(hak_lua_alloc(NULL, r, size, 0) == NULL);
        NEED(filled(p, more, 4));
        NEED(hak_lua_alloc(NULL, p, more, 0) == NULL);
        NEED(hak_lua_alloc(NULL, q, less, 0) == NULL);
    }
}

static void blocks(void)
{
    void *p = hak_malloc(100), *q = malloc(100);

    NEED(hak_owns(p) && !hak_owns(q));
    hak_free(p);
    free(q);
    to_and_fro();
}

/* ---- few addresses ------------------------------------------------------------ */

static void *take(size_t size)
{
    return mmap(NULL, size, PROT_NONE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static void narrow(void)
{
    size_t left = (size_t)40 << 30;
    void *hole = take(left);

    NEED(hole != MAP_FAILED);
    for (size_t size = (size_t)1 << 46; size >= (size_t)1 << 28; size /= 2) {
        while (take(size) != MAP_FAILED) {
        }
    }
    NEED(munmap(hole, left) == 0);
}

/* ---- modules ----------------------------------------------------------------- */

static void load(lua_State *L, const char *file)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "loadlib");
    lua_pushstring(L, file);
    lua_pushstring(L, "luaopen_hakmem");
    NEED(lua_pcall(L, 2, 1, 0) == LUA_OK && lua_isfunction(L, -1));
    NEED(lua_pcall(L, 0, 1, 0) == LUA_OK && lua_istable(L, -1));
    lua_getfield(L, -1, "stats");
    NEED(lua_pcall(L, 0, 1, 0) == LUA_OK && lua_istable(L, -1));
    lua_getfield(L, -1, "live_bytes");
    NEED(lua_tointeger(L, -1) > 10000);
    lua_settop(L, 0);
}

static void modules(const char *a, const char *b)
{
    lua_State *states[KINDS];

    for (int turn = 0; turn < 2; turn++) {
        for (unsigned i = 0; i < KINDS; i++) {
            states[i] = make(i);
            load(states[i], turn % 2 == 0 ? a : b);
            check(states[i]);
            load(states[i], turn % 2 == 0 ? b : a);
            load(states[i], a);
            check(states[i]);
        }
        end_all(states);
        NEED(heaps() <= 1); /* this thread's */
    }
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "threads") == 0) {
            threads();
        } else if (strcmp(argv[i], "fork") == 0) {
            forks(1);
        } else if (strcmp(argv[i], "blocks") == 0) {
            blocks();
        } else if (strcmp(argv[i], "narrow") == 0) {
            narrow();
        } else {
            NEED(strcmp(argv[i], "modules") == 0 && i + 2 < argc);
            modules(argv[i + 1], argv[i + 2]);
            i += 2;
        }
    }
    puts("well");
    return 0;
}
