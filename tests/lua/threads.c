/*
 * threads.c - states and threads: side by side, handed on, outliving the
 * thread that made them, closed elsewhere while their maker goes on. On heaps
 * and on thread heaps (ud NULL). Meant to run under a race detector as well.
 */
#include "lua_test.h"

#include <pthread.h>

TestSuite(threads, .timeout = 300);

static pthread_t start(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, run, argument), 0);
    return thread;
}

static void join(pthread_t thread)
{
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* Work whose result tells whether memory was mixed up. */
static const char work[] =
    "local n = ...\n"
    "data = data or {}\n"
    "for i = 1, n do\n"
    "    data[i] = {i, 's' .. i, ('x'):rep(i % 1400), {n}}\n"
    "end\n"
    "local co = coroutine.wrap(function()\n"
    "    for i = 1, n do coroutine.yield(data[i][1] + #data[i][3]) end\n"
    "end)\n"
    "local sum = 0\n"
    "for i = 1, n do\n"
    "    assert(data[i][2] == 's' .. i and data[i][4][1] == n)\n"
    "    sum = sum + co() - i % 1400\n"
    "end\n"
    "collectgarbage('step')\n"
    "return sum\n";

static void do_work(lua_State *L, long n)
{
    if (luaL_loadstring(L, work) != LUA_OK)
        cr_assert_fail("%s", lua_tostring(L, -1));
    lua_pushinteger(L, n);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK)
        cr_assert_fail("%s", lua_tostring(L, -1));
    cr_assert_eq(lua_tointeger(L, -1), n * (n + 1) / 2);
    lua_settop(L, 0);
}

/* ---- side by side ------------------------------------------------------ */

typedef struct job {
    lt_mode mode;
    long rounds, size;
    lua_State *L;
    pthread_barrier_t *barrier;
} job;

static void *own_state(void *argument)
{
    job *j = argument;
    lua_State *L = lt_open(j->mode);
    pthread_barrier_wait(j->barrier);
    for (long i = 0; i < j->rounds; i++)
        do_work(L, j->size + i % 50);
    hak_lua_close(L);
    return NULL;
}

static void side_by_side(const lt_mode *modes, unsigned count)
{
    pthread_barrier_t barrier;
    pthread_t threads[8];
    job jobs[8];
    pthread_barrier_init(&barrier, NULL, count);
    for (unsigned i = 0; i < count; i++) {
        jobs[i] = (job){modes[i], lt_scaled(100), 300, NULL, &barrier};
        threads[i] = start(own_state, &jobs[i]);
    }
    for (unsigned i = 0; i < count; i++)
        join(threads[i]);
    pthread_barrier_destroy(&barrier);
}

Test(threads, two_states)
{
    side_by_side((lt_mode[]){LT_HEAP, LT_HEAP}, 2);
    side_by_side((lt_mode[]){LT_THREAD, LT_THREAD}, 2);
    side_by_side((lt_mode[]){LT_HEAP, LT_THREAD}, 2);
}

Test(threads, eight_states)
{
    side_by_side((lt_mode[]){LT_HEAP, LT_THREAD, LT_HEAP, LT_THREAD, LT_STOCK,
                             LT_THREAD, LT_HEAP, LT_THREAD},
                 8);
}

static void *open_and_close(void *argument)
{
    job *j = argument;
    for (long i = 0; i < j->rounds; i++) {
        lua_State *L = lt_open(i % 2 ? j->mode : LT_THREAD);
        if (i % 5 == 0)
            do_work(L, j->size);
        hak_lua_close(L);
    }
    return NULL;
}

Test(threads, many_open_and_close)
{
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    job jobs[THREADS];
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (job){LT_HEAP, lt_scaled(300), 100, NULL, NULL};
        threads[i] = start(open_and_close, &jobs[i]);
    }
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
}

/* ---- handed on --------------------------------------------------------- */

typedef struct ring {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    long turn, turns;
    int members;
    lua_State *states[2];
} ring;

typedef struct member {
    ring *ring;
    int index;
} member;

/* Uses both states whenever it is this thread's turn. */
static void *take_turns(void *argument)
{
    member *m = argument;
    ring *r = m->ring;
    pthread_mutex_lock(&r->lock);
    while (r->turn < r->turns) {
        if (r->turn % r->members != m->index) {
            pthread_cond_wait(&r->changed, &r->lock);
            continue;
        }
        for (int s = 0; s < 2; s++)
            do_work(r->states[s], 10 + r->turn % 90);
        r->turn++;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static void hand_around(int members)
{
    pthread_t threads[8];
    member list[8];
    ring r = {.lock = PTHREAD_MUTEX_INITIALIZER,
              .changed = PTHREAD_COND_INITIALIZER,
              .turns = lt_scaled(3000),
              .members = members,
              .states = {lt_open(LT_HEAP), lt_open(LT_THREAD)}};
    for (int i = 0; i < members; i++) {
        list[i] = (member){&r, i};
        threads[i] = start(take_turns, &list[i]);
    }
    for (int i = 0; i < members; i++)
        join(threads[i]);
    for (int s = 0; s < 2; s++) {
        do_work(r.states[s], 500);
        hak_lua_close(r.states[s]);
    }
}

Test(threads, handed_on)
{
    hand_around(2);
    hand_around(5);
}

/* ---- longer than their threads ----------------------------------------- */

static void *make_state(void *argument)
{
    job *j = argument;
    j->L = lt_open(j->mode);
    do_work(j->L, j->size);
    return NULL;
}

static void *use_and_close(void *argument)
{
    job *j = argument;
    for (long i = 0; i < 3; i++)
        do_work(j->L, j->size + i * 50);
    hak_lua_close(j->L);
    return NULL;
}

static void orphans(lt_mode mode, bool in_a_thread)
{
    long rounds = lt_scaled(200), first = 0;
    for (long i = 0; i < rounds; i++) {
        job j = {mode, 0, 200 + i % 100, NULL, NULL};
        join(start(make_state, &j));
        if (in_a_thread)
            join(start(use_and_close, &j));
        else
            use_and_close(&j);
        if (i == rounds / 4)
            first = lt_resident();
    }
    if (lt_native())
        cr_expect_lt(lt_resident(), first + 2048, "%ld KB, then %ld KB", first,
                     lt_resident());
}

Test(threads, maker_is_gone)
{
    orphans(LT_HEAP, true);
    orphans(LT_HEAP, false);
}

Test(threads, maker_is_gone_thread_heap)
{
    orphans(LT_THREAD, true);
    orphans(LT_THREAD, false);
}

/* Many makers gone at once, their states used in turn by one thread. */
Test(threads, many_makers_gone)
{
    enum { MAKERS = 16 };
    pthread_t threads[MAKERS];
    job jobs[MAKERS];
    for (int i = 0; i < MAKERS; i++) {
        jobs[i] = (job){i % 2 ? LT_THREAD : LT_HEAP, 0, 200, NULL, NULL};
        threads[i] = start(make_state, &jobs[i]);
    }
    for (int i = 0; i < MAKERS; i++)
        join(threads[i]);
    for (int round = 0; round < 5; round++)
        for (int i = 0; i < MAKERS; i++)
            do_work(jobs[i].L, 100 + round * 50);
    for (int i = MAKERS; i-- > 0;)
        hak_lua_close(jobs[i].L);
}

/* ---- closed elsewhere while the maker goes on -------------------------- */

enum { ROOM = 4 };

typedef struct queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    lua_State *states[ROOM];
    int count;
    bool ended;
} queue;

static void queue_put(queue *q, lua_State *L)
{
    pthread_mutex_lock(&q->lock);
    while (q->count == ROOM)
        pthread_cond_wait(&q->changed, &q->lock);
    if (L)
        q->states[q->count++] = L;
    else
        q->ended = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

static lua_State *queue_take(queue *q)
{
    pthread_mutex_lock(&q->lock);
    while (!q->count && !q->ended)
        pthread_cond_wait(&q->changed, &q->lock);
    lua_State *L = q->count ? q->states[--q->count] : NULL;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    return L;
}

static void *closer(void *argument)
{
    lua_State *L;
    while ((L = queue_take(argument))) {
        do_work(L, 150);
        hak_lua_close(L);
    }
    return NULL;
}

Test(threads, maker_and_closers)
{
    queue q = {.lock = PTHREAD_MUTEX_INITIALIZER,
               .changed = PTHREAD_COND_INITIALIZER};
    pthread_t threads[3];
    long count = lt_scaled(1500), first = 0;
    for (int i = 0; i < 3; i++)
        threads[i] = start(closer, &q);
    for (long i = 0; i < count; i++) {
        lua_State *L = lt_open(i % 3 ? LT_THREAD : LT_HEAP);
        do_work(L, 20 + i % 100);
        queue_put(&q, L);
        if (i == count / 4)
            first = lt_resident();
    }
    queue_put(&q, NULL);
    for (int i = 0; i < 3; i++)
        join(threads[i]);
    if (lt_native())
        cr_expect_lt(lt_resident(), first + 8192, "%ld KB, then %ld KB", first,
                     lt_resident());
}

/* A switched state moves as well; its heap ends in the last thread. */
static void *switch_and_work(void *argument)
{
    job *j = argument;
    cr_assert(hak_lua_switch(j->L, NULL));
    do_work(j->L, 300);
    return NULL;
}

Test(threads, switched_elsewhere)
{
    for (long i = 0, n = lt_scaled(100); i < n; i++) {
        job j = {i % 2 ? LT_THREAD : LT_STOCK, 0, 200, NULL, NULL};
        join(start(make_state, &j));
        join(start(switch_and_work, &j));
        join(start(use_and_close, &j));
    }
}
