/* base/log.c -- one line, one write. */
#include "base/log.h"
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LINE = 2048, MAX_PREFIX = 64 };

static atomic_int log_level =
    TV_LOG_INFO; /* the log sink's level: the library's only global state */
static _Thread_local char log_prefix[MAX_PREFIX];

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};

tv_status_t tv_log_level_parse(const char *word, tv_log_level_t *level_out)
{
    for (int i = TV_LOG_DEBUG; i <= TV_LOG_OFF; i++) {
        if (strcmp(word, level_names[i]) == 0) {
            *level_out = (tv_log_level_t)i;
            return TV_OK;
        }
    }
    return TV_ERR(TV_INVALID, "--log-level %s is not one of debug, info, warn, error, off", word);
}

void tv_log_set_level(tv_log_level_t level)
{
    atomic_store(&log_level, (int)level);
}

void tv_log_set_prefix(const char *prefix)
{
    snprintf(log_prefix, sizeof(log_prefix), "%s", prefix);
}

void tv_log(tv_log_level_t level, const char *format, ...)
{
    if ((int)level < atomic_load(&log_level) || level >= TV_LOG_OFF)
        return;
    char line[MAX_LINE];
    int used = snprintf(line, sizeof(line), "trivet: %s%s%s", log_prefix, log_prefix[0] ? ": " : "",
                        level == TV_LOG_WARN ? "warning: " : "");
    va_list args;
    va_start(args, format);
    const int wrote = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, args);
    va_end(args);
    used += wrote < 0 ? 0 : wrote;
    if (used > (int)sizeof(line) - 2)
        used = (int)sizeof(line) - 2;
    line[used++] = '\n';
    const ssize_t ignored = write(STDERR_FILENO, line, (size_t)used);
    (void)ignored; /* nobody is left to tell when standard error is closed */
}
