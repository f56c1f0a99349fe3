package node

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// A request that is under way when the agent ends is answered; a stream without
// an end is ended, and what takes too long is cut. All are waited for.
func TestEndAnswers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	began, answer, ended := make(chan string, 3), make(chan struct{}), make(chan string, 3)
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/slow", func(w http.ResponseWriter, r *http.Request) {
		began <- "slow"
		select {
		case <-answer:
			_, _ = io.WriteString(w, "all of it")
		case <-r.Context().Done():
		}
		ended <- "slow"
	})
	mux.HandleFunc("/v1/events", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, ": here\n")
		_ = http.NewResponseController(w).Flush()
		began <- "events"
		<-r.Context().Done()
		ended <- "events"
	})
	s := serve(mux, func(s *http.Server) error { return s.Serve(ln) }, func(err error) { t.Error(err) })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(path string) chan string {
		text := make(chan string, 1)
		go func() {
			resp, err := client.Get("http://" + ln.Addr().String() + path)
			if err != nil {
				text <- err.Error()
				return
			}
			defer resp.Body.Close()
			all, err := io.ReadAll(resp.Body)
			text <- string(all) + map[bool]string{true: "", false: " cut"}[err == nil]
		}()
		return text
	}
	slow, events := ask("/v1/slow"), ask("/v1/events")
	<-began
	<-began
	over := make(chan error, 1)
	go func() { over <- s.end(time.Hour) }()
	if got := <-events; got != ": here\n" || <-ended != "events" {
		t.Errorf("the stream: %q", got)
	}
	select {
	case err := <-over:
		t.Errorf("it has ended with a request under way: %v", err)
	default:
	}
	close(answer)
	if got := <-slow; got != "all of it" || <-ended != "slow" {
		t.Errorf("the slow one: %q", got)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}

	if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	answer = nil
	s = serve(mux, func(s *http.Server) error { return s.Serve(ln) }, func(err error) { t.Error(err) })
	slow = ask("/v1/slow")
	<-began
	if err := s.end(0); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	default:
		t.Error("it has ended before a request that was cut")
	}
	if got := <-slow; got == "all of it" {
		t.Errorf("the slow one: %q", got)
	}
}

// Others are told a port and a host at which they can ask.
func TestShownHTTP(t *testing.T) {
	for _, c := range []struct {
		bind string
		dev  bool
		want string
	}{
		{"0.0.0.0:0", false, "10.0.0.9:7099"}, {":7070", false, "10.0.0.9:7099"}, {"[::]:0", false, "10.0.0.9:7099"},
		{"box.plant:0", false, "box.plant:7099"}, {"127.0.0.1:7070", false, ""}, {"127.0.0.1:0", true, "127.0.0.1:7099"},
	} {
		n := &Node{http: &net.TCPAddr{Port: 7099}}
		n.o.Config.HTTP.Bind, n.o.Config.Dev, n.o.Config.Advertise = c.bind, c.dev, "10.0.0.9:7071"
		if got := n.shownHTTP(); got != c.want {
			t.Errorf("%s: %q, want %q", c.bind, got, c.want)
		}
	}
}
