/* train/account_text.c -- the accounts as tables. */
#include "train/account_report.h"

/* "12.345 MB": at least four digits, in powers of ten as links are. */
static const char *bytes_text(int64_t bytes, char *text, size_t size)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 9999.5 && unit < 5; unit++)
        value /= 1000;
    snprintf(text, size, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text;
}

static int64_t sum_of(const int64_t *bytes)
{
    int64_t sum = 0;
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++)
        sum += bytes[a];
    return sum;
}

/* One row per account that sent anything. */
static void print_sent(FILE *out, const struct tv_account_report *report)
{
    const struct tv_mesh_account *m = &report->measured;
    char sent[16], predicted[16], largest[16], between[16];
    if (sum_of(m->sent_bytes) + sum_of(report->predicted.bytes) == 0)
        return;
    fprintf(out, "%-6s  %11s  %11s  %12s  %13s  %10s  (a step)\n", "axis", "sent", "predicted",
            "largest rank", "between nodes", "exposed ms");
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++) {
        if (m->sent_bytes[a] + report->predicted.bytes[a] == 0)
            continue;
        fprintf(out, "%-6s  %11s  %11s  %12s  %13s  %10.3f\n", tv_account_name((enum tv_account)a),
                bytes_text(m->sent_bytes[a], sent, sizeof(sent)),
                bytes_text(report->predicted.bytes[a], predicted, sizeof(predicted)),
                bytes_text(m->largest_sent_bytes[a], largest, sizeof(largest)),
                report->num_nodes > 0
                    ? bytes_text(report->predicted.between[a], between, sizeof(between))
                    : "-",
                1e3 * m->exposed_seconds[a]);
    }
}

void tv_stages_memory_print(FILE *out, const struct tv_account_report *report)
{
    const double mib = 1048576.0;
    fputs("stage weights MiB   grads   optim   activ buffers   total predicted of need\n", out);
    for (int p = 0; p < report->num_stages; p++) {
        const struct tv_stage_memory *s = &report->stages[p];
        const struct tv_memory_sum measured = tv_memory_sum_of(s->measured);
        fprintf(out, "%5d %11.1f", p, (double)s->measured[TV_MEM_PARAMS] / mib);
        for (int k = TV_MEM_PARAMS + 1; k < TV_NUM_MEM_KINDS; k++)
            fprintf(out, " %7.1f", (double)s->measured[k] / mib);
        fprintf(out, " %7.1f %9.1f %7.3f\n", (double)measured.total / mib,
                (double)tv_memory_sum_of(s->predicted).total / mib, measured.of_need);
    }
}

void tv_account_report_print(FILE *out, const struct tv_account_report *report)
{
    tv_stages_memory_print(out, report);
    print_sent(out, report);
}

void tv_sent_print_head(FILE *out)
{
    fputs("sent in a step, by the largest rank of each stage and by all ranks:\n", out);
    fprintf(out, "%5s", "stage");
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++)
        fprintf(out, "  %10s", tv_account_name((enum tv_account)a));
    fprintf(out, "  %10s\n", "total");
}

void tv_sent_print_row(FILE *out, const char *name, const int64_t *bytes)
{
    char text[16];
    fprintf(out, "%5s", name);
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++)
        fprintf(out, "  %10s", bytes_text(bytes[a], text, sizeof(text)));
    fprintf(out, "  %10s\n", bytes_text(sum_of(bytes), text, sizeof(text)));
}
