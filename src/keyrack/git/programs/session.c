/* The forced command: asks the service what to do with the client's command, runs git, and stops it when told.

   session SOCKET FINGERPRINT
   It does not interpret SSH_ORIGINAL_COMMAND: it passes it to the service, which answers with an argument list and
   a whole environment, or with a refusal. No shell is started. While git runs, the connection to the service stays
   open; "stop" ends git's process group. When the connection breaks, the service may have been restarted: the program
   reconnects for as long as the service said that it may be absent, and then stops git. The service sends "go" every
   few seconds; one that sends nothing for longer than that absence hangs, and is treated as one that is absent. */

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "service.h"

enum {
    ANSWER_SECONDS = 15,
    LONGEST_COMMAND = 4096,
    MAX_FIELDS = 256,
    RETRY_MILLISECONDS = 500,
    SILENCE_MILLISECONDS = 15000,
    GRACE_MILLISECONDS = 2000,
    TEMPORARY_FAILURE = 75,
    STOPPED = 77,
};

struct answer {
    char text[LARGEST];
    char *fields[MAX_FIELDS + 1];
    int count;
};

static const char *socket_path, *fingerprint;
static int child_ended[2], receives;

static void on_child(int number) {
    int saved = errno;
    (void)number;
    (void)!write(child_ended[1], "", 1);
    errno = saved;
}

static const char *environment_or_empty(const char *name) {
    const char *value = getenv(name);
    return value == NULL ? "" : value;
}

/* kind: "open" for a new operation, "again" for one that goes on. */
static int ask(int service, const char *kind) {
    static char frame[LONGEST_COMMAND + 4096];
    char address[128] = "";
    sscanf(environment_or_empty("SSH_CONNECTION"), "%127s", address);
    size_t end = 4;
    end = add_field(frame, end, kind, 16);
    end = add_field(frame, end, fingerprint, 128);
    end = add_field(frame, end, address, sizeof address);
    end = add_field(frame, end, environment_or_empty("GIT_PROTOCOL"), 256);
    /* One character too many is enough for the service to see that a command is too long. */
    end = add_field(frame, end, environment_or_empty("SSH_ORIGINAL_COMMAND"), LONGEST_COMMAND + 1);
    return send_frame(service, frame, end);
}

static int receive(int service, struct answer *answer) {
    size_t length = receive_frame(service, answer->text);
    if (length == 0)
        return -1;
    answer->count = 0;
    for (char *field = answer->text; field < answer->text + length; field += strlen(field) + 1) {
        if (answer->count == MAX_FIELDS)
            return -1;
        answer->fields[answer->count++] = field;
    }
    answer->fields[answer->count] = NULL;
    return 0;
}

static int is_kind(const struct answer *answer, const char *kind, int fields) {
    return answer->count >= fields && strcmp(answer->fields[0], kind) == 0;
}

static void say(const char *words) {
    if (*words != 0)
        fprintf(stderr, "Keyrack: %s\n", words);
}

static long long milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Limits each process of git; "0" is no limit, and none exceeds our own hard limit. */
static int set_limit(int resource, const char *text) {
    struct rlimit limit;
    rlim_t wanted = strtoull(text, NULL, 10);
    if (wanted == 0)
        return 0;
    if (getrlimit(resource, &limit) != 0)
        return -1;
    if (limit.rlim_max == RLIM_INFINITY || wanted < limit.rlim_max)
        limit.rlim_max = wanted;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(resource, &limit);
}

/* answer: "serve", seconds, words, three limits, count of environment entries, the entries, the arguments. */
static pid_t start_git(struct answer *answer) {
    static char *environment[MAX_FIELDS + 1];
    int entries = atoi(answer->fields[6]);
    if (entries < 0 || 7 + entries >= answer->count)
        return -1;
    memcpy(environment, answer->fields + 7, (size_t)entries * sizeof *environment);
    char **arguments = answer->fields + 7 + entries;
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        setpgid(0, 0);
#ifdef __linux__
        prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
        /* The parent may have ended before PR_SET_PDEATHSIG was set. */
        if (getppid() != parent)
            _exit(127);
        signal(SIGPIPE, SIG_DFL);
        /* A write beyond RLIMIT_FSIZE then fails with an error that git reports, in place of killing it. */
        signal(SIGXFSZ, SIG_IGN);
        if (set_limit(RLIMIT_CPU, answer->fields[3]) != 0 || set_limit(RLIMIT_DATA, answer->fields[4]) != 0 ||
            set_limit(RLIMIT_FSIZE, answer->fields[5]) != 0)
            _exit(127);
        execve(arguments[0], arguments, environment);
        _exit(127);
    }
    if (child > 0)
        setpgid(child, child);
    return child;
}

static int exit_code(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Whether a child ends within the grace period. It stays a zombie, so that its group's id is not used again. */
static int ends(pid_t child) {
    siginfo_t ended;
    for (long long end = milliseconds() + GRACE_MILLISECONDS; milliseconds() < end; usleep(10000)) {
        ended.si_pid = 0;
        if (waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == child)
            return 1;
    }
    return 0;
}

/* Sends SIGTERM to the programs that git has started to receive or check a push (/proc, Linux only); how many. */
static int stop_children(pid_t child) {
    char path[64];
    int pid, count = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)child, (int)child);
    FILE *children = fopen(path, "r");
    if (children == NULL)
        return 0;
    while (fscanf(children, "%d", &pid) == 1)
        count += kill(pid, SIGTERM) == 0;
    fclose(children);
    return count;
}

static int stop_git(pid_t child, const char *words) {
    int status;
    /* A receive-pack that is killed leaves what it received on the disk (2.39 and newer); one whose index-pack
       fails refuses the push and removes it. Without a child there is nothing to remove. */
    if (!receives || stop_children(child) == 0 || !ends(child)) {
        kill(-child, SIGTERM);
        ends(child);
    }
    kill(-child, SIGKILL);
    waitpid(child, &status, 0);
    say(words);
    return STOPPED;
}

/* Reconnects once. Returns the connection, -1 when the service is not there, -2 when it refuses. */
static int reconnect(struct answer *answer) {
    int service = connect_to(socket_path, ANSWER_SECONDS);
    if (service < 0)
        return -1;
    if (ask(service, "again") == 0 && receive(service, answer) == 0) {
        if (is_kind(answer, "go", 1))
            return service;
        if (is_kind(answer, "refuse", 3)) {
            close(service);
            return -2;
        }
    }
    close(service);
    return -1;
}

static int watch(pid_t child, int service, long long most_absence) {
    static struct answer answer;
    long long lost_at = 0, last_message_at = milliseconds(), most_silence = most_absence + SILENCE_MILLISECONDS;
    for (;;) {
        int status, left = (int)(last_message_at + most_silence - milliseconds());
        struct pollfd ready[2] = {{.fd = child_ended[0], .events = POLLIN}, {.fd = service, .events = POLLIN}};
        if (waitpid(child, &status, WNOHANG) == child)
            return exit_code(status);
        if (poll(ready, service < 0 ? 1 : 2, service < 0 ? RETRY_MILLISECONDS : left > 0 ? left : 0) < 0 && errno != EINTR)
            return stop_git(child, "the transfer was stopped.");
        if (ready[0].revents != 0) {
            char ignored[16];
            (void)!read(child_ended[0], ignored, sizeof ignored);
            continue;
        }
        int readable = ready[1].revents != 0;
        if (service >= 0 && !readable && milliseconds() - last_message_at < most_silence)
            continue;
        if (service >= 0) {
            int received = readable && receive(service, &answer) == 0;
            if (received && is_kind(&answer, "stop", 2))
                return stop_git(child, answer.fields[1]);
            if (received && is_kind(&answer, "go", 1)) {
                last_message_at = milliseconds();
                continue;
            }
            close(service);
            lost_at = readable ? milliseconds() : last_message_at;
        }
        service = reconnect(&answer);
        if (service == -2)
            return stop_git(child, answer.fields[2]);
        if (service >= 0)
            last_message_at = milliseconds();
        if (service < 0 && milliseconds() - lost_at > most_absence)
            return stop_git(child, "your rights cannot be confirmed at the moment; try again.");
    }
}

int main(int count, char **arguments) {
    static struct answer answer;
    if (count != 3)
        return 2;
    socket_path = arguments[1];
    fingerprint = arguments[2];
    int service = connect_to(socket_path, ANSWER_SECONDS);
    if (service < 0 || ask(service, "open") != 0 || receive(service, &answer) != 0) {
        say("Git is not available at the moment; try again.");
        return TEMPORARY_FAILURE;
    }
    if (is_kind(&answer, "refuse", 3)) {
        say(answer.fields[2]);
        return atoi(answer.fields[1]);
    }
    if (!is_kind(&answer, "serve", 8) || pipe(child_ended) != 0) {
        say("Git is not available at the moment; try again.");
        return TEMPORARY_FAILURE;
    }
    for (int end = 0; end < 2; end++) {
        fcntl(child_ended[end], F_SETFD, FD_CLOEXEC);
        fcntl(child_ended[end], F_SETFL, O_NONBLOCK);
    }
    struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_NOCLDSTOP};
    sigaction(SIGCHLD, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    say(answer.fields[2]);
    long long most_absence = atoll(answer.fields[1]) * 1000;
    receives = strcmp(answer.fields[answer.count - 2], "receive-pack") == 0;
    pid_t child = start_git(&answer);
    if (child < 0) {
        say("git could not be started.");
        return TEMPORARY_FAILURE;
    }
    /* Only git holds the client's ends now, so that each side sees when the other has finished. */
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    return watch(child, service, most_absence);
}
