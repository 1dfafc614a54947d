
/*
 * status_stress.c - the shared zone of the status page without an nginx, under
 * more than an nginx would do to it: workers that publish all the time, end
 * or are killed and come again, and readers. Run by test_status.py.
 *
 * A reader must never see a counter's sum go down nor a worker twice. In the
 * end the sums must be what the workers have published, no more and no less.
 */


#include "status/status.c"
#include "status/snapshot.c"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>


#define WORKERS  6
#define READERS  3
#define LIVES    600


typedef struct {
    ngx_atomic_t  reads;
    ngx_atomic_t  wrong;
    ngx_atomic_t  doing[LIVES + WORKERS];   /* what a life is to publish */
    ngx_atomic_t  done[LIVES + WORKERS];    /* what it has published */
    ngx_atomic_t  ended[LIVES + WORKERS];   /* by itself */
} stress_shared_t;


static stress_shared_t    *shared;
static ngx_slab_pool_t    *shpool;
static ngx_shm_zone_t      zone;
static ngx_atomic_uint_t   counted;

ngx_pid_t            ngx_pid;
ngx_uint_t           ngx_worker;
ngx_uint_t           ngx_pagesize = 4096;
volatile ngx_msec_t  ngx_current_msec;
ngx_hakmem_worker_t  ngx_hakmem_worker = { .state = NGX_HAKMEM_MODULE };


#define counter  1
#define gauge    0

ngx_hakmem_stat_t  ngx_hakmem_stat_table[] = {
#define NGX_HAKMEM_STAT(name, kind, value, help)  { #name, help, kind },
#include "status/stats.def"
};

#undef counter
#undef gauge


/* ---- what nginx and status/process.c have -------------------------------- */


void
ngx_hakmem_gather(ngx_atomic_uint_t *stats)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HAKMEM_STATS; i++) {
        stats[i] = counted;
    }
}


ngx_uint_t
ngx_hakmem_started(ngx_pid_t pid)
{
    return 1;
}


ngx_uint_t
ngx_hakmem_alive(ngx_pid_t pid, ngx_uint_t started)
{
    return kill(pid, 0) == 0;
}


void
ngx_shmtx_lock(ngx_shmtx_t *mtx)
{
    while (!ngx_shmtx_trylock(mtx)) {
        sched_yield();
    }
}


ngx_uint_t
ngx_shmtx_trylock(ngx_shmtx_t *mtx)
{
    return *mtx->lock == 0 && ngx_atomic_cmp_set(mtx->lock, 0, getpid());
}


void
ngx_shmtx_unlock(ngx_shmtx_t *mtx)
{
    (void) ngx_atomic_cmp_set(mtx->lock, getpid(), 0);
}


void *
ngx_slab_alloc(ngx_slab_pool_t *pool, size_t size)
{
    return mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_ANON|MAP_SHARED, -1, 0);
}


void *
ngx_palloc(ngx_pool_t *pool, size_t size)
{
    return malloc(size);
}


void *
ngx_array_push(ngx_array_t *a)
{
    if (a->nelts == a->nalloc) {
        a->nalloc *= 2;
        a->elts = realloc(a->elts, a->nalloc * a->size);
    }

    return (u_char *) a->elts + a->size * a->nelts++;
}


ngx_shm_zone_t *
ngx_shared_memory_add(ngx_conf_t *cf, ngx_str_t *name, size_t size, void *tag)
{
    return NULL;
}


void ngx_cdecl
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
    shared->wrong++;
    fprintf(stderr, "no record was left\n");
}


/* ---- the processes ------------------------------------------------------- */


/* publishes until it is killed, or ends after a while */

static void
stress_worker(ngx_int_t number, ngx_uint_t life)
{
    ngx_uint_t              i;
    ngx_hakmem_row_t       *row;
    ngx_hakmem_snapshot_t   ss;

    ngx_pid = getpid();
    ngx_worker = number;
    counted = 1000000;                      /* not its own */

    ngx_hakmem_record_take(&zone, 1, NULL);

    for (i = 0; life % 3 == 0 ? i < 200 : 1; i++) {
        counted++;
        shared->doing[life]++;
        ngx_hakmem_record_publish();
        shared->done[life]++;
    }

    ngx_hakmem_record_end();

    /* it is still there, but not on the page */

    if (ngx_hakmem_snapshot(&ss, &zone, NULL) != NGX_OK) {
        shared->wrong++;
    }

    row = ss.workers.elts;

    for (i = 0; i < ss.workers.nelts; i++) {
        if (row[i].pid == ngx_pid) {
            shared->wrong++;
            fprintf(stderr, "a worker that has ended\n");
        }
    }

    shared->ended[life] = 1;
    _exit(0);
}


static void
stress_check(ngx_hakmem_snapshot_t *ss, ngx_hakmem_row_t *before)
{
    ngx_uint_t         i;
    ngx_hakmem_row_t  *row;

    for (i = 0; i < NGX_HAKMEM_STATS; i++) {
        if (ngx_hakmem_stat_table[i].counter
            && ss->all.stats[i] < before->stats[i])
        {
            shared->wrong++;
            fprintf(stderr, "%s was %lu, is %lu\n",
                    ngx_hakmem_stat_table[i].name, before->stats[i],
                    ss->all.stats[i]);
            break;
        }
    }

    row = ss->workers.elts;

    for (i = 1; i < ss->workers.nelts; i++) {
        if (row[i].worker <= row[i - 1].worker) {
            shared->wrong++;
            fprintf(stderr, "worker %ld after %ld\n", (long) row[i].worker,
                    (long) row[i - 1].worker);
        }
    }

    *before = ss->all;
}


static void
stress_reader(void)
{
    ngx_hakmem_row_t       before;
    ngx_hakmem_snapshot_t  ss;

    ngx_pid = getpid();
    ngx_memzero(&before, sizeof(ngx_hakmem_row_t));

    for ( ;; ) {
        if (ngx_hakmem_snapshot(&ss, &zone, NULL) != NGX_OK) {
            shared->wrong++;
            _exit(1);
        }

        stress_check(&ss, &before);
        shared->reads++;

        free(ss.workers.elts);
        free(ss.generations.elts);
    }
}


static ngx_pid_t
stress_fork(ngx_int_t number, ngx_uint_t life)
{
    ngx_pid_t  pid;

    pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);

        if (number < 0) {
            stress_reader();
        }

        stress_worker(number, life);
    }

    return pid;
}


/* as the master does for the dead */

static void
stress_reap(ngx_pid_t pid)
{
    (void) waitpid(pid, NULL, 0);
    (void) ngx_atomic_cmp_set(shpool->mutex.lock, pid, 0);
}


static void
stress_lives(void)
{
    ngx_uint_t  i, life, killed;
    ngx_pid_t   pids[WORKERS], readers[READERS];

    for (i = 0; i < READERS; i++) {
        readers[i] = stress_fork(-1, 0);
    }

    for (life = 0; life < WORKERS; life++) {
        pids[life] = stress_fork(life, life);
    }

    for ( /* void */ ; life < LIVES + WORKERS; life++) {
        usleep(random() % 1500);

        i = random() % WORKERS;
        killed = random() % 4;

        if (killed) {
            (void) kill(pids[i], SIGKILL);
        }

        /* one that does not end by itself */

        if (waitpid(pids[i], NULL, WNOHANG) == 0) {
            (void) kill(pids[i], SIGKILL);
        }

        stress_reap(pids[i]);
        pids[i] = stress_fork(i, life);
    }

    for (i = 0; i < WORKERS; i++) {
        (void) kill(pids[i], SIGKILL);
        stress_reap(pids[i]);
    }

    for (i = 0; i < READERS; i++) {
        (void) kill(readers[i], SIGKILL);
        stress_reap(readers[i]);
    }
}


static int
stress_judge(void)
{
    ngx_uint_t             i, least, most, ended;
    ngx_hakmem_snapshot_t  ss;

    least = 0;
    most = 0;
    ended = 0;

    for (i = 0; i < LIVES + WORKERS; i++) {
        least += shared->done[i];
        most += shared->doing[i];
        ended += shared->ended[i];
    }

    ngx_pid = getpid();

    if (ngx_hakmem_snapshot(&ss, &zone, NULL) != NGX_OK) {
        return 1;
    }

    i = ss.all.stats[NGX_HAKMEM_STAT_tiny_allocs];

    printf("%lu lives, %lu ended by themselves; published %lu..%lu, "
           "counted %lu; %lu reads, %lu wrong; %lu records left, %lu used\n",
           (u_long) ss.gone.workers, ended, least, most, i, shared->reads,
           shared->wrong, ss.records,
           ((ngx_hakmem_zone_t *) zone.data)->top);

    return shared->wrong || i < least || i > most || ss.records
           || ss.gone.workers > LIVES + WORKERS || ss.gone.workers < LIVES / 2
           || shared->reads < 1000 || ended == 0
           || ((ngx_hakmem_zone_t *) zone.data)->top > 4 * WORKERS;
}


int
main(void)
{
    shared = ngx_slab_alloc(NULL, sizeof(stress_shared_t));
    shpool = ngx_slab_alloc(NULL, sizeof(ngx_slab_pool_t));

    shpool->mutex.lock = &shpool->lock.lock;
    zone.shm.addr = (u_char *) shpool;

    if (ngx_hakmem_zone_init(&zone, NULL) != NGX_OK) {
        return 1;
    }

    stress_lives();

    return stress_judge();
}
