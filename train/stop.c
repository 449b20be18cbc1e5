/* train/stop.c -- signals as flags, and the clock of --exit-after. */
#include "train/stop.h"
#include "base/clock.h"
#include "base/log.h"
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_INTERRUPTED = 130 }; /* as of a shell's command that SIGINT ended */

static const struct {
    int number;
    const char *name;
} stops[TV_NUM_STOPS] = {
    [TV_STOP_NONE] = {0, "nothing"},          [TV_STOP_TIME] = {0, "--exit-after"},
    [TV_STOP_SIGUSR1] = {SIGUSR1, "SIGUSR1"}, [TV_STOP_SIGTERM] = {SIGTERM, "SIGTERM"},
    [TV_STOP_SIGINT] = {SIGINT, "SIGINT"},
};

/* Of the process, as signals are. */
static atomic_int was_told[TV_NUM_STOPS]; /* lock-free, so handlers may set them */
static atomic_int is_announced;
static double stops_at; /* of a monotonic clock, seconds; 0: never */

const char *tv_stop_name(tv_stop_t stop)
{
    return stops[stop].name;
}

static void on_signal(int number)
{
    for (int i = 0; i < TV_NUM_STOPS; i++) {
        if (stops[i].number == number && atomic_exchange(&was_told[i], 1) && number == SIGINT)
            _exit(EXIT_INTERRUPTED);
    }
}

tv_status_t tv_stop_watch(double exit_after_minutes)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < TV_NUM_STOPS; i++) {
        if (stops[i].number != 0 && sigaction(stops[i].number, &action, NULL) != 0)
            return TV_ERR(TV_INTERNAL, "%s cannot be caught: %s", stops[i].name, strerror(errno));
    }
    stops_at = exit_after_minutes > 0 ? tv_clock_seconds() + 60 * exit_after_minutes : 0;
    return TV_OK;
}

static tv_stop_t signal_heard(void)
{
    tv_stop_t heard = TV_STOP_NONE;
    for (int i = 0; i < TV_NUM_STOPS; i++) {
        if (atomic_load(&was_told[i]))
            heard = (tv_stop_t)i;
    }
    return heard;
}

tv_stop_t tv_stop_wish(void)
{
    const tv_stop_t heard = signal_heard();
    if (heard == TV_STOP_NONE && stops_at > 0 && tv_clock_seconds() >= stops_at)
        return TV_STOP_TIME;
    return heard;
}

void tv_stop_announce(void)
{
    const tv_stop_t heard = signal_heard();
    if (heard == TV_STOP_NONE || atomic_exchange(&is_announced, 1))
        return;
    tv_log(TV_LOG_INFO, "%s: stops after this step%s", tv_stop_name(heard),
           heard == TV_STOP_SIGINT ? "; a second Ctrl-C leaves at once, without saving" : "");
}
