package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
)

const (
	// stable is how long a connection must last to count as a good one: after
	// it the back-off begins anew.
	stable = 5 * dataflow.Second
	// contested is how many connections in a row must be short to say so.
	contested = 3
	// quiesce bounds the clean end of a session: DISCONNECT written, paho's
	// goroutines gone. It is more than conn's farewell.
	quiesce = 3 * time.Second
	// handOver is how long paho's Subscribe waits for its own goroutines, which
	// have ended if the connection was lost in that moment.
	handOver = 2 * time.Second
)

// user is what a session serves: the reader or the writer. The session calls
// prepare, attach, up and down in this order for each connection, from one
// goroutine; message and what is set in prepare come from paho's.
type user interface {
	// prepare sets the hooks of a connection before anything is sent.
	prepare(c *conn)
	// attach says that l is the connection from now on. No message is handed
	// over before it returns.
	attach(l *link)
	// up does what a new connection needs; an error ends the connection.
	up(ctx context.Context, l *link) error
	// down says that l has ended, with all of paho's goroutines.
	down(l *link)
	// message takes a PUBLISH. It must not block.
	message(l *link, m paho.Message)
}

// link is one connection, from CONNACK to its end.
type link struct {
	conn   *conn
	client paho.Client
	known  bool          // the broker still had the session
	ready  chan struct{} // closed when the user has attached
	lost   chan error    // gets the reason when paho has given the connection up
}

// session keeps one session with a broker: it connects, waits for the end of
// the connection, and connects again, until it is closed.
//
//	connecting  --CONNACK-->  up  --lost, or user.up fails-->  waiting
//	connecting  --refused, unreachable-->  waiting  --back-off over, and a permit-->  connecting
//	any  --close-->  closed
type session struct {
	e      *endpoint
	clean  bool
	wipe   bool // before the first connection the broker is to forget what it knows of the client id
	user   user
	store  *store
	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned

	mu   sync.Mutex // guards last
	last error      // why there is no connection now; nil if there is one, or before the first attempt
}

// start runs the session until close.
func (s *session) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done = cancel, make(chan struct{})
	go pprof.Do(ctx, pprof.Labels("mqtt", "session", "client", s.e.ClientID), s.run)
}

// close ends the session and waits for its goroutines. It may be called twice.
func (s *session) close() {
	s.cancel()
	<-s.done
}

// trouble is why there is no connection now, for the text of errors.
func (s *session) trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (s *session) setTrouble(err error) {
	s.mu.Lock()
	s.last = err
	s.mu.Unlock()
}

func (s *session) emit(e Event) {
	e.At, e.Broker, e.ClientID = s.e.Clock.Now(), s.e.url, s.e.ClientID
	s.e.Events(e)
}

func (s *session) run(ctx context.Context) {
	defer close(s.done)
	attempt, short, waiting := 0, 0, false
	for ctx.Err() == nil {
		if err := sensors.Permitted(s.e.Permit); err != nil {
			if !waiting {
				s.emit(Event{Kind: NotPermitted, Err: err})
			}
			waiting = true
			s.setTrouble(err)
			s.pause(ctx, s.backoff(1))
			continue
		}
		waiting = false
		attempt++
		s.emit(Event{Kind: Connecting, Attempt: attempt})
		l, err := s.connect(ctx)
		kind := Unreachable
		if err == nil {
			since := s.e.Clock.Now()
			kind, err = s.serve(ctx, l)
			switch {
			case s.e.Clock.Now() >= since.Add(stable):
				attempt, short = 0, 0
			case kind == Lost && hungUp(err):
				short++
			}
		}
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, ErrRefused) {
			kind = Refused
		}
		s.setTrouble(err)
		if short >= contested && kind == Lost {
			s.emit(Event{Kind: Contested, Count: int64(short), Err: err})
		}
		delay := s.backoff(max(attempt, 1))
		var topics []string
		if r := (*filterError)(nil); errors.As(err, &r) {
			topics = r.topics
		}
		s.emit(Event{Kind: kind, Err: err, RetryIn: delay, Topics: topics})
		s.pause(ctx, delay)
	}
	s.emit(Event{Kind: Closed})
}

func (s *session) pause(ctx context.Context, d dataflow.Duration) {
	select {
	case <-ctx.Done():
	case <-s.e.Clock.After(d):
	}
}

// hungUp tells whether the peer closed the connection, as a broker does when
// another client comes with the same id.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// backoff is the time before attempt+1: doubling, and half of it by chance, so
// that a fleet does not come back in step.
func (s *session) backoff(attempt int) dataflow.Duration {
	d := s.e.BackoffMin
	for i := 1; i < attempt && d < s.e.BackoffMax; i++ {
		d *= 2
	}
	d = min(d, s.e.BackoffMax)
	return d/2 + dataflow.Duration(float64(d/2)*s.e.Rand())
}

// serve lets the user have l until it ends.
func (s *session) serve(ctx context.Context, l *link) (Kind, error) {
	defer s.user.down(l)
	s.user.attach(l)
	close(l.ready)
	s.setTrouble(nil)
	s.emit(Event{Kind: Connected, Resumed: l.known})
	if err := s.user.up(ctx, l); err != nil {
		s.hangUp(l)
		return Lost, err
	}
	select {
	case err := <-l.lost:
		<-l.conn.done
		return Lost, fmt.Errorf("mqtt: connection to %s lost: %w", s.e.url, err)
	case <-l.conn.done:
		return Lost, s.failed(l)
	case <-ctx.Done():
		s.hangUp(l)
		return Lost, ctx.Err()
	}
}

// failed waits for paho to notice that the connection has failed, and does
// not trust it to.
func (s *session) failed(l *link) error {
	select {
	case err := <-l.lost:
		return fmt.Errorf("mqtt: connection to %s lost: %w", s.e.url, err)
	case <-s.e.Clock.After(dataflow.Duration(quiesce.Microseconds())):
		s.hangUp(l)
		return fmt.Errorf("mqtt: connection to %s failed: %w", s.e.url, l.conn.reason(net.ErrClosed))
	}
}

// hangUp says goodbye and waits for the end of everything that l runs.
func (s *session) hangUp(l *link) {
	l.client.Disconnect(uint(quiesce.Milliseconds()))
	<-l.conn.done
}

// connect makes one attempt, up to CONNACK.
func (s *session) connect(ctx context.Context) (*link, error) {
	if s.wipe {
		l, err := s.open(ctx, true)
		if err != nil {
			return nil, err
		}
		close(l.ready)
		s.hangUp(l)
		s.wipe = false
	}
	return s.open(ctx, s.clean)
}

func (s *session) open(ctx context.Context, clean bool) (*link, error) {
	user, password, err := s.e.credentials()
	if err != nil {
		return nil, err
	}
	l := &link{ready: make(chan struct{}), lost: make(chan error, 1)}
	o := paho.NewClientOptions().
		AddBroker(s.e.scheme + "://" + s.e.host).
		SetClientID(s.e.ClientID).
		SetCleanSession(clean).
		SetUsername(user).
		SetPassword(password).
		SetProtocolVersion(4). // 3.1.1, and no second try with 3.1
		SetOrderMatters(true).
		SetAutoAckDisabled(true).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetConnectTimeout(s.e.ConnectTimeout.Go()).
		SetKeepAlive(s.e.KeepAlive.Go()).
		SetPingTimeout(24 * time.Hour). // conn watches over the peer
		SetWriteTimeout(handOver).
		SetStore(s.store).
		// The default handler gets every message once; routes would get it once
		// for each filter that matches.
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { s.user.message(l, m) }).
		SetConnectionLostHandler(func(_ paho.Client, err error) { l.lost <- err })
	release := func() bool { return true }
	o.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		nc, err := s.e.dial(ctx)
		if err != nil {
			return nil, err
		}
		l.conn = newConn(nc, s.e.KeepAlive.Go())
		s.user.prepare(l.conn)
		l.conn.start()
		release = context.AfterFunc(ctx, func() { l.conn.fail(ctx.Err()) })
		return l.conn, nil
	})
	l.client = paho.NewClient(o)
	token := l.client.Connect().(*paho.ConnectToken)
	<-token.Done() // bounded by the connect timeout, and by ctx through dial and fail
	release()
	if err := token.Error(); err != nil {
		if l.conn != nil {
			_ = l.conn.Close()
		}
		return nil, s.refusal(token.ReturnCode(), err)
	}
	l.known = token.SessionPresent()
	return l, nil
}

// refusal makes an error that says what was refused and how to mend it.
func (s *session) refusal(code byte, err error) error {
	mend := ""
	switch code {
	case 1:
		mend = "it does not speak MQTT 3.1.1"
	case 2:
		mend = fmt.Sprintf("it does not accept the client id %q; choose another", s.e.ClientID)
	case 3:
		mend = "it is not available now"
	case 4:
		mend = "user name or password is wrong"
	case 5:
		mend = "not authorised: user name or password is wrong, or this client id may not connect"
	default:
		return fmt.Errorf("mqtt: cannot reach %s: %w", s.e.url, err)
	}
	return fmt.Errorf("mqtt: %s: connection %w: %s", s.e.url, ErrRefused, mend)
}

// dial opens the connection below MQTT.
func (e *endpoint) dial(ctx context.Context) (net.Conn, error) {
	timeout := e.ConnectTimeout.Go()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var tc *tls.Config
	if e.scheme == "tls" || e.scheme == "wss" {
		var err error
		if tc, err = e.tlsConfig(); err != nil {
			return nil, err
		}
	}
	if err := sensors.Permitted(e.Permit); err != nil {
		return nil, err
	}
	if e.scheme == "ws" || e.scheme == "wss" {
		nc, err := paho.NewWebsocket(e.url, tc, timeout, nil, nil)
		if err != nil {
			return nil, err
		}
		return e.permit(nc), nil
	}
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.host)
	if err != nil {
		return nil, err
	}
	nc = e.permit(nc)
	if tc == nil {
		return nc, nil
	}
	secure := tls.Client(nc, tc)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secure, nil
}
