// The reader of PyTorch's schedule CSV: any bytes are a proved schedule or a sentence, and what was
// read comes back the same after it was written.
#include "base/log.h"
#include "pipeline/schedule_csv.h"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

static void require(int holds)
{
    if (!holds)
        std::abort();
}

static void check_round_trip(const struct tv_schedule *schedule, tv_csv_form_t form)
{
    char *text = nullptr;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    require(out != nullptr && tv_schedule_write_csv(schedule, form, out) == TV_OK);
    std::fclose(out);
    struct tv_schedule again = {};
    // Moving messages out of a pair can leave stages waiting for each other; nothing else may fail.
    const tv_status_t status = tv_schedule_parse_csv(text, bytes, "again", &again);
    require(status == TV_OK || std::strstr(text, "OVERLAP") != nullptr);
    if (status == TV_OK) {
        require(again.num_stages == schedule->num_stages &&
                again.num_chunks == schedule->num_chunks && again.num_micro == schedule->num_micro);
    }
    tv_schedule_destroy(&again);
    free(text);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tv_log_set_level(TV_LOG_OFF);
    struct tv_schedule schedule = {};
    if (tv_schedule_parse_csv(reinterpret_cast<const char *>(data), size, "fuzz", &schedule) !=
        TV_OK) {
        require(tv_error_message()[0] != '\0');
        return 0;
    }
    check_round_trip(&schedule, TV_CSV_COMPUTE_COMMS);
    tv_schedule_destroy(&schedule);
    return 0;
}
