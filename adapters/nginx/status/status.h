
/*
 * status.h - the workers' statistics in shared memory, and the page that is
 * made of them.
 *
 * The zone has a record for each worker, which only that worker writes, and the
 * sums of workers that are gone. Every statistic is one aligned word, written
 * and read as a whole; readers take no lock. A text is not a single word: a
 * reader may see parts of the old and the new one, but nothing that JSON could
 * not hold.
 *
 * A record is in use while its number in use[] differs from that in the sums'
 * counted[]. A worker takes a record by adding one to use[]; it is given back
 * when its counters have been added to the sums and use[] copied to counted[].
 * This is a fold: it is done in the copy of the sums that is not current, and a
 * single store, to folds, makes that copy current. A process killed at any
 * point has changed everything or nothing. A reader that sees folds change
 * starts again. Folding and taking records are done under the zone's mutex,
 * which the master releases for dead processes.
 */


#ifndef _NGX_HAKMEM_STATUS_H_INCLUDED_
#define _NGX_HAKMEM_STATUS_H_INCLUDED_


#include <module/module.h>


/* as many as a master can have processes */
#define NGX_HAKMEM_RECORDS  NGX_MAX_PROCESSES


enum {
#define NGX_HAKMEM_STAT(name, kind, value, help)  NGX_HAKMEM_STAT_##name,
#include "stats.def"
    NGX_HAKMEM_STATS
};


typedef struct {
    char                *name;
    char                *help;
    ngx_uint_t           counter;        /* unsigned  counter:1; */
} ngx_hakmem_stat_t;


typedef struct {
    ngx_pid_t            pid;
    ngx_uint_t           started;        /* tells it from a later one's pid */
    ngx_int_t            worker;
    ngx_uint_t           generation;
    ngx_atomic_t         ended;          /* it exits and won't write again */
    ngx_atomic_t         updated;        /* ngx_current_msec */
    ngx_atomic_t         asleep;         /* since then nothing has changed */
    ngx_atomic_t         state;          /* ngx_hakmem_state_e + 1; 0: starts */
    u_char               text[NGX_HAKMEM_TEXT_LEN];      /* of the worker */
    ngx_atomic_t         stats[NGX_HAKMEM_STATS];
} ngx_hakmem_record_t;


typedef struct {
    ngx_atomic_t         workers;
    ngx_atomic_t         stats[NGX_HAKMEM_STATS];       /* counters only */
    uint32_t             counted[NGX_HAKMEM_RECORDS];
} ngx_hakmem_gone_t;


typedef struct {
    ngx_atomic_t         folds;          /* gone[folds & 1] is current */
    ngx_atomic_t         top;            /* no record from here on was used */
    volatile uint32_t    use[NGX_HAKMEM_RECORDS];
    ngx_hakmem_gone_t    gone[2];
    ngx_hakmem_record_t  records[NGX_HAKMEM_RECORDS];
} ngx_hakmem_zone_t;


/* what a reader makes of one record, or of many */

typedef struct {
    ngx_pid_t            pid;
    ngx_uint_t           started;
    ngx_int_t            worker;
    ngx_uint_t           generation;
    ngx_uint_t           ended;
    ngx_uint_t           state;
    ngx_msec_t           age;
    ngx_uint_t           workers;        /* how many it sums up */
    u_char               text[NGX_HAKMEM_TEXT_LEN];
    ngx_atomic_uint_t    stats[NGX_HAKMEM_STATS];
} ngx_hakmem_row_t;


typedef struct {
    ngx_hakmem_row_t     all;
    ngx_hakmem_row_t     gone;
    ngx_array_t          generations;    /* ngx_hakmem_row_t */
    ngx_array_t          workers;        /* by generation and number */
    ngx_uint_t           records;        /* in use */

    /* set by whoever asks for a snapshot */

    ngx_hakmem_file_e    file;
    const char          *path;
} ngx_hakmem_snapshot_t;


typedef enum {
    NGX_HAKMEM_TEXT = 0,
    NGX_HAKMEM_JSON,
    NGX_HAKMEM_PROMETHEUS
} ngx_hakmem_format_e;


/* of a location of http{}: which form a page has, unset: it is none */

typedef struct {
    ngx_uint_t           format;         /* ngx_hakmem_format_e */
    ngx_uint_t           profile;        /* HAK_PROFILE_... */
} ngx_http_hakmem_loc_conf_t;


extern ngx_hakmem_stat_t  ngx_hakmem_stat_table[];

/* by statistic: its former, deprecated name; or NULL */

extern char  *ngx_hakmem_old_names[];


/* process.c */

void ngx_hakmem_gather(ngx_atomic_uint_t *stats);
ngx_uint_t ngx_hakmem_started(ngx_pid_t pid);
ngx_uint_t ngx_hakmem_alive(ngx_pid_t pid, ngx_uint_t started);


/* status.c */

ngx_shm_zone_t *ngx_hakmem_zone_add(ngx_conf_t *cf, void *tag);
void ngx_hakmem_record_take(ngx_shm_zone_t *shm_zone, ngx_uint_t generation,
    ngx_log_t *log);
void ngx_hakmem_record_publish(void);
void ngx_hakmem_record_asleep(ngx_uint_t asleep);
void ngx_hakmem_record_end(void);

/* its zone no longer exists */
void ngx_hakmem_record_forget(void);
void ngx_hakmem_fold(ngx_hakmem_zone_t *zone);


/* snapshot.c */

ngx_int_t ngx_hakmem_snapshot(ngx_hakmem_snapshot_t *ss,
    ngx_shm_zone_t *shm_zone, ngx_pool_t *pool);


/* format.c */

ngx_buf_t *ngx_hakmem_format(ngx_pool_t *pool, ngx_hakmem_snapshot_t *ss,
    ngx_hakmem_format_e format);


#endif /* _NGX_HAKMEM_STATUS_H_INCLUDED_ */
