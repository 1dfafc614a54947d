
/*
 * sampling.c - whether a worker is sampled: "hakmem_profile_rate", and what
 * HAKMEM_PROFILE and HAKMEM_PROFILE_RATE in the environment began already.
 *
 * What a preloaded library samples has no scenes: its frames can't be set from
 * outside.
 */


#include <profile/profile.h>
#include <profile/frames.h>


#define NGX_HAKMEM_VALID_RATE                                                 \
    "\"off\" or a size from 1 to 1024m, and then perhaps \"requests\""


static ngx_uint_t  ngx_hakmem_requests;


void
ngx_hakmem_sampling_begin(ngx_cycle_t *cycle)
{
    size_t              rate;
    ngx_hakmem_conf_t  *hcf;

    hcf = ngx_hakmem_get_conf(cycle);

    ngx_hakmem_requests = hcf->profile_requests;

    if (!ngx_hakmem_has_core()) {
        return;
    }

    rate = hcf->profile_rate == NGX_CONF_UNSET_SIZE ? ngx_hakmem_sampling_rate()
                                                    : hcf->profile_rate;

    if (rate == 0 && ngx_hakmem_sampling_rate() == 0) {
        return;
    }

    if (ngx_hakmem_sampling_set(cycle, rate) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                      "hakmem: this worker is not sampled: there is no memory "
                      "for a profile, or the library knows none");
    }
}


void
ngx_hakmem_sampling_end(ngx_cycle_t *cycle)
{
    if (!ngx_hakmem_is_preloaded() && ngx_hakmem_has_core()) {
        hak_ngx_frames_write();
    }
}


size_t
ngx_hakmem_sampling_rate(void)
{
    ngx_hakmem_profiler_t  *profiler;

    profiler = ngx_hakmem_profiler();

    return profiler ? profiler->rate() : 0;
}


ngx_int_t
ngx_hakmem_sampling_set(ngx_cycle_t *cycle, size_t rate)
{
    ngx_hakmem_profiler_t  *profiler;

    profiler = ngx_hakmem_profiler();

    if (profiler == NULL) {
        return NGX_ERROR;
    }

    if (ngx_hakmem_is_preloaded()) {

        if (rate == 0) {
            profiler->stop();
            return NGX_OK;
        }

        return profiler->start(rate) == 0 ? NGX_OK : NGX_ERROR;
    }

    if (!hak_ngx_frames_rate(rate)) {
        return NGX_ERROR;
    }

    if (rate) {
        ngx_hakmem_scenes_begin(cycle, ngx_hakmem_requests);

    } else {
        ngx_hakmem_scenes_end();
    }

    return NGX_OK;
}


char *
ngx_hakmem_profile_rate(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_hakmem_conf_t *hcf = conf;

    ssize_t      rate;
    ngx_str_t   *value = cf->args->elts, *wrong;

    if (hcf->profile_rate != NGX_CONF_UNSET_SIZE) {
        return "is duplicate";
    }

    if (ngx_hakmem_takes(cf, 1, 2, NGX_HAKMEM_VALID_RATE) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    wrong = NULL;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        rate = 0;

    } else {
        rate = ngx_hakmem_rate_parse(&value[1]);

        if (rate == NGX_ERROR) {
            wrong = &value[1];
        }
    }

    if (cf->args->nelts == 3) {

        if (rate != 0 && ngx_strcmp(value[2].data, "requests") == 0) {
            hcf->profile_requests = 1;

        } else if (wrong == NULL) {
            wrong = &value[2];
        }
    }

    if (wrong) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\" directive, "
                           "it must be " NGX_HAKMEM_VALID_RATE,
                           wrong, &value[0]);
        return NGX_CONF_ERROR;
    }

    hcf->profile_rate = (size_t) rate;

    return NGX_CONF_OK;
}


ssize_t
ngx_hakmem_rate_parse(ngx_str_t *value)
{
    ssize_t  rate;

    rate = ngx_parse_size(value);

    return rate >= 1 && rate <= NGX_HAKMEM_RATE_MAX ? rate : NGX_ERROR;
}
