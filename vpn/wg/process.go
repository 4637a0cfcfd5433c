package wg

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// processEngine carries tunnels in this process.
type processEngine struct {
	log     *slog.Logger
	open    func(name string, mtu int) (tun.Device, error) // the tunnel's inner end
	devices map[string]*processDevice
}

type processDevice struct {
	device *device.Device
	socket *socket // nil when another process has the name
}

// make makes a tun device and starts WireGuard on it; it opens no port yet.
func (e *processEngine) make(name string, mtu int) error {
	if err := e.remove(name); err != nil {
		return err
	}
	t, err := e.open(name, mtu)
	if err != nil {
		return fmt.Errorf("make tun device %s: %w", name, err)
	}
	log := e.log.With("tunnel", name)
	d := device.NewDevice(t, conn.NewDefaultBind(), logger(log))
	s, err := serve(name, d.IpcHandle)
	if err != nil {
		log.Warn("tunnel cannot be seen by wg show", "error", err)
	}
	e.devices[name] = &processDevice{d, s}
	return nil
}

// device is os.ErrNotExist for a tunnel that this process does not carry, be it
// that its device was removed by somebody.
func (e *processEngine) device(name string) (*wgtypes.Device, error) {
	d, err := e.find(name)
	if err != nil {
		return nil, err
	}
	text, err := d.device.IpcGet()
	if err != nil {
		return nil, fmt.Errorf("read tunnel %s: %w", name, err)
	}
	w, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("read tunnel %s: %w", name, err)
	}
	w.Name = name
	return w, nil
}

func (e *processEngine) find(name string) (*processDevice, error) {
	d, ok := e.devices[name]
	if !ok {
		return nil, fmt.Errorf("tunnel %s: this process has none: %w", name, os.ErrNotExist)
	}
	select {
	case <-d.device.Wait():
		return nil, fmt.Errorf("tunnel %s: its device has ended: %w", name, os.ErrNotExist)
	default:
		return d, nil
	}
}

// configure changes a device. When the new UDP port cannot be had, it goes on
// with the old one.
func (e *processEngine) configure(name string, cfg wgtypes.Config) error {
	d, err := e.find(name)
	if err != nil {
		return err
	}
	if cfg.ListenPort == nil {
		return d.device.IpcSet(encode(cfg))
	}
	was, err := e.device(name)
	if err != nil {
		return err
	}
	if err = d.device.IpcSet(encode(cfg)); err == nil {
		return nil
	}
	back := wgtypes.Config{ListenPort: &was.ListenPort}
	return errors.Join(err, d.device.IpcSet(encode(back)))
}

// up opens the tunnel's port.
func (e *processEngine) up(name string) error {
	d, err := e.find(name)
	if err != nil {
		return err
	}
	return d.device.Up()
}

// remove ends a tunnel; its device is gone when remove returns.
func (e *processEngine) remove(name string) error {
	d, ok := e.devices[name]
	if !ok {
		return nil
	}
	delete(e.devices, name)
	var err error
	if d.socket != nil {
		err = d.socket.close()
	}
	d.device.Close()
	<-d.device.Wait()
	return err
}

// logger hands WireGuard's messages on. They abbreviate public keys and hold no
// others.
func logger(log *slog.Logger) *device.Logger {
	return &device.Logger{
		Verbosef: func(format string, args ...any) { log.Debug("wireguard", "says", said{format, args}) },
		Errorf:   func(format string, args ...any) { log.Warn("wireguard", "says", said{format, args}) },
	}
}

// said is a message that is put together only when it is written.
type said struct {
	format string
	args   []any
}

// LogValue is the message.
func (s said) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf(s.format, s.args...)) }
