
/*
 * wish.c - what a request for the page asks for, by its arguments.
 */


#include <profile/profile.h>


#define NGX_HAKMEM_SECONDS_MAX  3600


typedef ngx_int_t (*ngx_hakmem_wish_pt)(ngx_hakmem_wish_t *wish,
    ngx_str_t *value);

typedef struct {
    ngx_str_t            name;
    char                *valid;
    ngx_hakmem_wish_pt   read;
} ngx_hakmem_wish_arg_t;


static ngx_int_t ngx_hakmem_wish_arg(ngx_hakmem_wish_t *wish, ngx_str_t *arg,
    ngx_pool_t *pool);
static ngx_int_t ngx_hakmem_wish_format(ngx_hakmem_wish_t *wish,
    ngx_str_t *value);
static ngx_int_t ngx_hakmem_wish_rate(ngx_hakmem_wish_t *wish,
    ngx_str_t *value);
static ngx_int_t ngx_hakmem_wish_seconds(ngx_hakmem_wish_t *wish,
    ngx_str_t *value);
static ngx_int_t ngx_hakmem_wish_value(ngx_hakmem_wish_t *wish,
    ngx_str_t *value);
static ngx_int_t ngx_hakmem_wish_worker(ngx_hakmem_wish_t *wish,
    ngx_str_t *value);
static ngx_int_t ngx_hakmem_wish_refuse(ngx_hakmem_wish_t *wish,
    ngx_pool_t *pool, const char *fmt, ...);


ngx_conf_enum_t  ngx_hakmem_wish_formats[] = {
    { ngx_string("html"), HAK_PROFILE_PAGE },
    { ngx_string("pprof"), HAK_PROFILE_PPROF },
    { ngx_string("collapsed"), HAK_PROFILE_COLLAPSED },
    { ngx_string("speedscope"), HAK_PROFILE_SPEEDSCOPE },
    { ngx_null_string, 0 }
};


#define NGX_HAKMEM_WISH_ARGS                                                  \
    "\"format\", \"value\", \"seconds\", \"rate\" or \"worker\""

static ngx_hakmem_wish_arg_t  ngx_hakmem_wish_args[] = {

    { ngx_string("format"), NGX_HAKMEM_WISH_FORMATS, ngx_hakmem_wish_format },
    { ngx_string("value"), "\"live\" or \"allocated\"",
      ngx_hakmem_wish_value },
    { ngx_string("seconds"), "a number from 1 to 3600",
      ngx_hakmem_wish_seconds },
    { ngx_string("rate"), "a size from 1 to 1024m", ngx_hakmem_wish_rate },
    { ngx_string("worker"), "the number of a process",
      ngx_hakmem_wish_worker },
    { ngx_null_string, NULL, NULL }
};


ngx_int_t
ngx_hakmem_wish_read(ngx_str_t *args, ngx_pool_t *pool,
    ngx_hakmem_wish_t *wish)
{
    u_char     *p, *last, *end;
    ngx_str_t   arg;

    p = args->data;
    last = p + args->len;

    for ( /* void */ ; p < last; p = end + 1) {

        end = ngx_strlchr(p, last, '&');
        if (end == NULL) {
            end = last;
        }

        arg.data = p;
        arg.len = end - p;

        if (arg.len && ngx_hakmem_wish_arg(wish, &arg, pool) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (wish->rate && !wish->seconds) {
        return ngx_hakmem_wish_refuse(wish, pool,
                                      "\"rate\" needs \"seconds\"");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_hakmem_wish_arg(ngx_hakmem_wish_t *wish, ngx_str_t *arg, ngx_pool_t *pool)
{
    u_char                 *equals;
    ngx_str_t               name, value;
    ngx_hakmem_wish_arg_t  *known;

    name = *arg;
    ngx_str_null(&value);

    equals = ngx_strlchr(arg->data, arg->data + arg->len, '=');

    if (equals) {
        name.len = equals - arg->data;
        value.data = equals + 1;
        value.len = arg->data + arg->len - value.data;
    }

    for (known = ngx_hakmem_wish_args; known->name.len; known++) {

        if (known->name.len != name.len
            || ngx_strncmp(known->name.data, name.data, name.len) != 0)
        {
            continue;
        }

        if (value.len && known->read(wish, &value) == NGX_OK) {
            return NGX_OK;
        }

        return ngx_hakmem_wish_refuse(wish, pool,
                                      "invalid value \"%V\" of \"%V\", "
                                      "it must be %s",
                                      &value, &known->name, known->valid);
    }

    return ngx_hakmem_wish_refuse(wish, pool, "unknown argument \"%V\", "
                                  "it must be " NGX_HAKMEM_WISH_ARGS, &name);
}


static ngx_int_t
ngx_hakmem_wish_format(ngx_hakmem_wish_t *wish, ngx_str_t *value)
{
    ngx_conf_enum_t  *format;

    for (format = ngx_hakmem_wish_formats; format->name.len; format++) {

        if (format->name.len == value->len
            && ngx_strncmp(format->name.data, value->data, value->len) == 0)
        {
            wish->format = format->value;
            return NGX_OK;
        }
    }

    return NGX_ERROR;
}


static ngx_int_t
ngx_hakmem_wish_value(ngx_hakmem_wish_t *wish, ngx_str_t *value)
{
    if (value->len == sizeof("live") - 1
        && ngx_strncmp(value->data, "live", value->len) == 0)
    {
        wish->flags &= ~HAK_PROFILE_ALLOCATED;
        return NGX_OK;
    }

    if (value->len == sizeof("allocated") - 1
        && ngx_strncmp(value->data, "allocated", value->len) == 0)
    {
        wish->flags |= HAK_PROFILE_ALLOCATED;
        return NGX_OK;
    }

    return NGX_ERROR;
}


static ngx_int_t
ngx_hakmem_wish_seconds(ngx_hakmem_wish_t *wish, ngx_str_t *value)
{
    ngx_int_t  seconds;

    seconds = ngx_atoi(value->data, value->len);

    if (seconds < 1 || seconds > NGX_HAKMEM_SECONDS_MAX) {
        return NGX_ERROR;
    }

    wish->seconds = seconds;

    return NGX_OK;
}


static ngx_int_t
ngx_hakmem_wish_rate(ngx_hakmem_wish_t *wish, ngx_str_t *value)
{
    ssize_t  rate;

    rate = ngx_hakmem_rate_parse(value);

    if (rate == NGX_ERROR) {
        return NGX_ERROR;
    }

    wish->rate = (size_t) rate;

    return NGX_OK;
}


static ngx_int_t
ngx_hakmem_wish_worker(ngx_hakmem_wish_t *wish, ngx_str_t *value)
{
    wish->worker = ngx_atoi(value->data, value->len);

    return wish->worker > 0 ? NGX_OK : NGX_ERROR;
}


/* what the client sent is repeated, but not all of any length or kind */

static ngx_int_t
ngx_hakmem_wish_refuse(ngx_hakmem_wish_t *wish, ngx_pool_t *pool,
    const char *fmt, ...)
{
    u_char   *p, buf[256];
    va_list   args;

    va_start(args, fmt);
    wish->why.data = buf;
    wish->why.len = ngx_vslprintf(buf, buf + sizeof(buf), fmt, args) - buf;
    va_end(args);

    for (p = buf; p < buf + wish->why.len; p++) {
        if (*p < ' ' || *p >= 0x7f) {
            *p = '?';
        }
    }

    wish->why.data = ngx_pstrdup(pool, &wish->why);

    if (wish->why.data == NULL) {
        ngx_str_null(&wish->why);
    }

    return NGX_ERROR;
}
