
/*
 * format.c - the status page as text, JSON and for Prometheus.
 *
 * Every format is written twice: first into nothing, to find out the size, then
 * into a buffer of that size.
 */


#include <status/status.h>
#include <hakmem.h>


#define NGX_HAKMEM_NAME_WIDTH   20
#define NGX_HAKMEM_CELL_WIDTH   16


typedef struct {
    u_char  *last;                       /* NULL: only the size is wanted */
    u_char  *end;
    size_t   size;
} ngx_hakmem_out_t;


typedef void (*ngx_hakmem_format_pt)(ngx_hakmem_out_t *out,
    ngx_hakmem_snapshot_t *ss);


static void ngx_hakmem_text(ngx_hakmem_out_t *out, ngx_hakmem_snapshot_t *ss);
static void ngx_hakmem_text_row(ngx_hakmem_out_t *out,
    ngx_hakmem_snapshot_t *ss, ngx_uint_t stat);
static void ngx_hakmem_text_heads(ngx_hakmem_out_t *out,
    ngx_hakmem_snapshot_t *ss);
static void ngx_hakmem_text_left(ngx_hakmem_out_t *out, char *s);
static void ngx_hakmem_text_right(ngx_hakmem_out_t *out, char *s);
static void ngx_hakmem_json(ngx_hakmem_out_t *out, ngx_hakmem_snapshot_t *ss);
static void ngx_hakmem_json_stats(ngx_hakmem_out_t *out,
    ngx_hakmem_row_t *row, ngx_uint_t gone);
static void ngx_hakmem_prometheus(ngx_hakmem_out_t *out,
    ngx_hakmem_snapshot_t *ss);
static void ngx_hakmem_prometheus_workers(ngx_hakmem_out_t *out,
    ngx_hakmem_snapshot_t *ss);
static void ngx_hakmem_prometheus_stat(ngx_hakmem_out_t *out,
    ngx_hakmem_snapshot_t *ss, ngx_uint_t stat, char *old);
static u_char *ngx_hakmem_why(ngx_hakmem_row_t *row);
static u_char *ngx_hakmem_serving(ngx_hakmem_row_t *row);
static void ngx_hakmem_print(ngx_hakmem_out_t *out, const char *fmt, ...);


static ngx_hakmem_format_pt  ngx_hakmem_formats[] = {
    ngx_hakmem_text,
    ngx_hakmem_json,
    ngx_hakmem_prometheus
};


/* by ngx_hakmem_state_e + 1 */

static char  *ngx_hakmem_states[] = {
    "starting",
    "system",
    "module",
    "preload"
};


/* by ngx_hakmem_file_e */

static char  *ngx_hakmem_files[] = {
    "same",
    "replaced",
    "gone"
};


static u_char  ngx_hakmem_none[] = "";


ngx_buf_t *
ngx_hakmem_format(ngx_pool_t *pool, ngx_hakmem_snapshot_t *ss,
    ngx_hakmem_format_e format)
{
    ngx_buf_t         *b;
    ngx_hakmem_out_t   out;

    out.last = NULL;
    out.size = 0;

    ngx_hakmem_formats[format](&out, ss);

    b = ngx_create_temp_buf(pool, out.size);
    if (b == NULL) {
        return NULL;
    }

    out.last = b->last;
    out.end = b->end;

    ngx_hakmem_formats[format](&out, ss);

    b->last = out.last;

    return b;
}


static void
ngx_hakmem_text(ngx_hakmem_out_t *out, ngx_hakmem_snapshot_t *ss)
{
    ngx_uint_t         i;
    ngx_hakmem_row_t  *row;

    ngx_hakmem_print(out, "hakmem %s, nginx " NGINX_VERSION
                     ", %ui workers, %ui gone, %ui of %d slots in use\n\n",
                     hak_version(), ss->all.workers, ss->gone.workers,
                     ss->records, NGX_HAKMEM_RECORDS);

    ngx_hakmem_text_heads(out, ss);

    for (i = 0; i < NGX_HAKMEM_STATS; i++) {
        ngx_hakmem_text_row(out, ss, i);
    }

    row = ss->workers.elts;

    for (i = 0; i < ss->workers.nelts; i++) {

        if (row[i].text[0] == '\0') {
            continue;
        }

        ngx_hakmem_print(out, "worker %i of generation %ui: %s%s\n",
                         row[i].worker, row[i].generation,
                         *ngx_hakmem_serving(&row[i]) ? "serving " : "",
                         row[i].text);
    }

    if (ss->file != NGX_HAKMEM_FILE_SAME) {
        ngx_hakmem_print(out, "%s %s since nginx started: the old code "
                         "runs until nginx is restarted or upgraded by "
                         "USR2\n",
                         ss->path,
                         ss->file == NGX_HAKMEM_FILE_GONE ? "is gone"
                                                          : "was replaced");
    }
}


/* the contents of the columns: all, gone, generations, workers */

static void
ngx_hakmem_text_heads(ngx_hakmem_out_t *out, ngx_hakmem_snapshot_t *ss)
{
    ngx_uint_t         i;
    ngx_hakmem_row_t  *row, *sum;

    row = ss->workers.elts;
    sum = ss->generations.elts;

    ngx_hakmem_text_left(out, "worker");
    ngx_hakmem_text_right(out, "all");
    ngx_hakmem_text_right(out, "gone");

    for (i = 0; i < ss->generations.nelts; i++) {
        ngx_hakmem_text_right(out, "all");
    }

    for (i = 0; i < ss->workers.nelts; i++) {
        ngx_hakmem_print(out, "%16i", row[i].worker);
    }

    ngx_hakmem_print(out, "\n");
    ngx_hakmem_text_left(out, "generation");
    ngx_hakmem_text_right(out, "all");
    ngx_hakmem_text_right(out, "all");

    for (i = 0; i < ss->generations.nelts; i++) {
        ngx_hakmem_print(out, "%16ui", sum[i].generation);
    }

    for (i = 0; i < ss->workers.nelts; i++) {
        ngx_hakmem_print(out, "%16ui", row[i].generation);
    }

    ngx_hakmem_print(out, "\n");
    ngx_hakmem_text_left(out, "pid");

    for (i = 0; i < 2 + ss->generations.nelts; i++) {
        ngx_hakmem_text_right(out, "-");
    }

    for (i = 0; i < ss->workers.nelts; i++) {
        ngx_hakmem_print(out, "%16i", (ngx_int_t) row[i].pid);
    }

    ngx_hakmem_print(out, "\n");
    ngx_hakmem_text_left(out, "served_by");

    for (i = 0; i < 2 + ss->generations.nelts; i++) {
        ngx_hakmem_text_right(out, "-");
    }

    for (i = 0; i < ss->workers.nelts; i++) {
        ngx_hakmem_text_right(out, ngx_hakmem_states[row[i].state]);
    }

    ngx_hakmem_print(out, "\n");
}


static void
ngx_hakmem_text_row(ngx_hakmem_out_t *out, ngx_hakmem_snapshot_t *ss,
    ngx_uint_t stat)
{
    ngx_uint_t         i;
    ngx_hakmem_row_t  *row;

    ngx_hakmem_text_left(out, ngx_hakmem_stat_table[stat].name);

    ngx_hakmem_print(out, "%16uA", ss->all.stats[stat]);

    if (ngx_hakmem_stat_table[stat].counter) {
        ngx_hakmem_print(out, "%16uA", ss->gone.stats[stat]);

    } else {
        ngx_hakmem_text_right(out, "-");
    }

    row = ss->generations.elts;

    for (i = 0; i < ss->generations.nelts; i++) {
        ngx_hakmem_print(out, "%16uA", row[i].stats[stat]);
    }

    row = ss->workers.elts;

    for (i = 0; i < ss->workers.nelts; i++) {
        ngx_hakmem_print(out, "%16uA", row[i].stats[stat]);
    }

    ngx_hakmem_print(out, "\n");
}


static void
ngx_hakmem_text_left(ngx_hakmem_out_t *out, char *s)
{
    size_t  len;

    len = ngx_min(ngx_strlen(s), NGX_HAKMEM_NAME_WIDTH);

    ngx_hakmem_print(out, "%s%*s", s, NGX_HAKMEM_NAME_WIDTH - len,
                     "                    ");
}


static void
ngx_hakmem_text_right(ngx_hakmem_out_t *out, char *s)
{
    size_t  len;

    len = ngx_min(ngx_strlen(s), NGX_HAKMEM_CELL_WIDTH);

    ngx_hakmem_print(out, "%*s%s", NGX_HAKMEM_CELL_WIDTH - len,
                     "                ", s);
}


static void
ngx_hakmem_json(ngx_hakmem_out_t *out, ngx_hakmem_snapshot_t *ss)
{
    ngx_uint_t         i;
    ngx_hakmem_row_t  *row;

    ngx_hakmem_print(out, "{\"hakmem\":\"%s\",\"nginx\":\"" NGINX_VERSION
                     "\",\n\"code_on_disk\":\"%s\",\n"
                     "\"slots\":{\"used\":%ui,\"size\":%d},\n",
                     hak_version(), ngx_hakmem_files[ss->file],
                     ss->records, NGX_HAKMEM_RECORDS);

    ngx_hakmem_print(out, "\"all\":{\"workers\":%ui", ss->all.workers);
    ngx_hakmem_json_stats(out, &ss->all, 0);

    ngx_hakmem_print(out, "},\n\"gone\":{\"workers\":%ui", ss->gone.workers);
    ngx_hakmem_json_stats(out, &ss->gone, 1);

    ngx_hakmem_print(out, "},\n\"generations\":[");

    row = ss->generations.elts;

    for (i = 0; i < ss->generations.nelts; i++) {
        ngx_hakmem_print(out, "%s\n{\"generation\":%ui,\"workers\":%ui",
                         i ? "," : "", row[i].generation, row[i].workers);
        ngx_hakmem_json_stats(out, &row[i], 0);
        ngx_hakmem_print(out, "}");
    }

    ngx_hakmem_print(out, "],\n\"workers\":[");

    row = ss->workers.elts;

    for (i = 0; i < ss->workers.nelts; i++) {
        ngx_hakmem_print(out, "%s\n{\"worker\":%i,\"generation\":%ui,"
                         "\"pid\":%P,\"served_by\":\"%s\",\"why\":\"%s\","
                         "\"serving\":\"%s\",\"age_ms\":%M",
                         i ? "," : "", row[i].worker, row[i].generation,
                         row[i].pid, ngx_hakmem_states[row[i].state],
                         ngx_hakmem_why(&row[i]), ngx_hakmem_serving(&row[i]),
                         row[i].age);
        ngx_hakmem_json_stats(out, &row[i], 0);
        ngx_hakmem_print(out, "}");
    }

    ngx_hakmem_print(out, "]}\n");
}


static void
ngx_hakmem_json_stats(ngx_hakmem_out_t *out, ngx_hakmem_row_t *row,
    ngx_uint_t gone)
{
    char        *old;
    ngx_uint_t   i;

    for (i = 0; i < NGX_HAKMEM_STATS; i++) {

        if (gone && !ngx_hakmem_stat_table[i].counter) {
            continue;
        }

        ngx_hakmem_print(out, ",\"%s\":%uA", ngx_hakmem_stat_table[i].name,
                         row->stats[i]);

        old = ngx_hakmem_old_names[i];

        if (old) {
            ngx_hakmem_print(out, ",\"%s\":%uA", old, row->stats[i]);
        }
    }
}


static void
ngx_hakmem_prometheus(ngx_hakmem_out_t *out, ngx_hakmem_snapshot_t *ss)
{
    char        *old;
    ngx_uint_t   i;

    ngx_hakmem_prometheus_workers(out, ss);

    for (i = 0; i < NGX_HAKMEM_STATS; i++) {
        ngx_hakmem_prometheus_stat(out, ss, i, NULL);

        old = ngx_hakmem_old_names[i];

        if (old) {
            ngx_hakmem_prometheus_stat(out, ss, i, old);
        }
    }
}


static void
ngx_hakmem_prometheus_workers(ngx_hakmem_out_t *out, ngx_hakmem_snapshot_t *ss)
{
    ngx_uint_t         i;
    ngx_hakmem_row_t  *row;

    ngx_hakmem_print(out,
                     "# HELP hakmem_nginx_workers_gone_total workers that have "
                     "ended\n"
                     "# TYPE hakmem_nginx_workers_gone_total counter\n"
                     "hakmem_nginx_workers_gone_total %ui\n"
                     "# HELP hakmem_nginx_slots workers that the page has "
                     "statistics of\n"
                     "# TYPE hakmem_nginx_slots gauge\n"
                     "hakmem_nginx_slots %ui\n"
                     "# HELP hakmem_nginx_code_replaced 1: the file of the "
                     "module or library is not the one that runs\n"
                     "# TYPE hakmem_nginx_code_replaced gauge\n"
                     "hakmem_nginx_code_replaced %d\n",
                     ss->gone.workers, ss->records,
                     ss->file != NGX_HAKMEM_FILE_SAME);

    ngx_hakmem_print(out,
                     "# HELP hakmem_nginx_worker_info who serves the worker: "
                     "module, preload or system, and then why\n"
                     "# TYPE hakmem_nginx_worker_info gauge\n");

    row = ss->workers.elts;

    for (i = 0; i < ss->workers.nelts; i++) {
        ngx_hakmem_print(out,
                         "hakmem_nginx_worker_info{worker=\"%i\","
                         "generation=\"%ui\",pid=\"%P\",served_by=\"%s\","
                         "why=\"%s\"} 1\n",
                         row[i].worker, row[i].generation, row[i].pid,
                         ngx_hakmem_states[row[i].state],
                         ngx_hakmem_why(&row[i]));
    }
}


/*
 * Ended workers have labels too, so that sum() over a counter's series is what
 * all workers, present and past, have counted. old is the name to use instead
 * of the statistic's, or NULL.
 */

static void
ngx_hakmem_prometheus_stat(ngx_hakmem_out_t *out, ngx_hakmem_snapshot_t *ss,
    ngx_uint_t stat, char *old)
{
    char               *name, *suffix;
    ngx_uint_t          i;
    ngx_hakmem_row_t   *row;
    ngx_hakmem_stat_t  *f;

    f = &ngx_hakmem_stat_table[stat];
    name = old ? old : f->name;
    suffix = f->counter ? "_total" : "";

    ngx_hakmem_print(out, "# HELP hakmem_nginx_%s%s ", name, suffix);

    if (old) {
        ngx_hakmem_print(out, "deprecated, is now hakmem_nginx_%s%s: ",
                         f->name, suffix);
    }

    ngx_hakmem_print(out, "%s\n# TYPE hakmem_nginx_%s%s %s\n",
                     f->help, name, suffix, f->counter ? "counter" : "gauge");

    if (f->counter) {
        ngx_hakmem_print(out, "hakmem_nginx_%s%s{worker=\"gone\","
                         "generation=\"gone\"} %uA\n",
                         name, suffix, ss->gone.stats[stat]);
    }

    row = ss->workers.elts;

    for (i = 0; i < ss->workers.nelts; i++) {
        ngx_hakmem_print(out, "hakmem_nginx_%s%s{worker=\"%i\","
                         "generation=\"%ui\"} %uA\n",
                         name, suffix, row[i].worker, row[i].generation,
                         row[i].stats[stat]);
    }
}


/* depending on who serves a worker, its text says one of the two */

static u_char *
ngx_hakmem_why(ngx_hakmem_row_t *row)
{
    return (row->state == NGX_HAKMEM_SYSTEM + 1) ? row->text : ngx_hakmem_none;
}


static u_char *
ngx_hakmem_serving(ngx_hakmem_row_t *row)
{
    return (row->state > NGX_HAKMEM_SYSTEM + 1) ? row->text : ngx_hakmem_none;
}


static void
ngx_hakmem_print(ngx_hakmem_out_t *out, const char *fmt, ...)
{
    size_t    n;
    u_char    buf[1024];
    va_list   args;

    va_start(args, fmt);
    n = ngx_vslprintf(buf, buf + sizeof(buf), fmt, args) - buf;
    va_end(args);

    if (out->last) {
        n = ngx_min(n, (size_t) (out->end - out->last));
        out->last = ngx_cpymem(out->last, buf, n);

    } else {
        out->size += n;
    }
}
